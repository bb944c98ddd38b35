import base64
import json
import re
import time

import numpy as np
import pytest
from browser import CHROMIUM, DRIVER, headless
from click.testing import CliRunner
from PIL import Image
from synthetic import make_record

from benchmark.cli.report import report as command
from benchmark.core.errors import DataError, MissingError
from benchmark.evaluation.protocols import load_protocol
from benchmark.results import boards as leaderboard
from benchmark.results import records
from benchmark.results.report import build

METHODS = {"d3hr": 60, "random": 50, "kmeans": 56}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two datasets, two protocols, two students, three IPC values; a failure; pictures."""
    folder = tmp_path_factory.mktemp("results")
    (folder / "sets").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (40, 1200, 3), dtype=np.uint8)
    for dataset in ("digits", "fashionmnist"):
        for protocol in ("hard", "soft"):
            for student in ("convnet3_bn", "resnet18"):
                for ipc in (1, 10, 50):
                    for method, base in METHODS.items():
                        for seed in range(3):
                            record = make_record(
                                method, seed, dataset=dataset, protocol=protocol, student=student, ipc=ipc,
                                top1=base + ipc / 5 + seed * (1 + len(method) % 3),
                            )  # fmt: skip
                            picture = f"sets/{dataset}-{method}-{ipc}.png"
                            Image.fromarray(noise).save(folder / picture)
                            record["artifacts"]["contact_sheet"] = picture
                            made_with = load_protocol(protocol)
                            record["identity"]["protocol"] = {
                                "name": protocol, "version": made_with.version, "digest": made_with.digest,
                            }  # fmt: skip
                            records.write_record(folder, record)
    failed = make_record("sre2l<b>", dataset="digits", protocol="hard", status="failed", reason="NaN </script> loss")
    records.write_record(folder, failed)
    (folder / "grids" / "depth" / "plots").mkdir(parents=True)
    (folder / "grids" / "depth" / "plots" / "a.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    return folder


@pytest.fixture(scope="module")
def page(results):
    return build(records.iter_records(results), results)


def test_page_is_the_same_every_time_and_loads_nothing(results, page):
    assert build(records.iter_records(results), results) == page
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "@import" not in page and "url(" not in page and "fetch(" not in page


def test_csv_to_download_is_the_board(results, page):
    encoded = re.search(r'href="data:text/csv;charset=utf-8;base64,([^"]+)"', page)[1]
    assert base64.b64decode(encoded).decode() == leaderboard.csv_text(leaderboard.rows(records.iter_records(results)))


def test_text_is_escaped(page):
    assert "sre2l<b>" not in page.split('id="data"')[0]
    assert page.count("</script>") == 2  # the data's and the code's own


def test_sections(page):
    for title in ("Boards", "All results", "Cost against accuracy", "Distilled images", "Grids", "Protocols",
                  "Reported by papers", "Failed and skipped", "Provenance"):  # fmt: skip
        assert f"<h2>{title}</h2>" in page, title
    assert "Where they differ" in page and page.count("data:image/png") == 18
    links = re.findall(r'<a href="#at=([a-z]+)"', page)
    assert links == re.findall(r'<section (?:data-group )?id="([a-z]+)"', page)[1:]  # all but the answer


def test_protocols_stand_as_resolved(tmp_path):
    for student, batch in (("convnet3_bn", 10), ("resnet18", 64)):
        record = make_record(student=student)
        record["artifacts"]["resolved"] = {"batch": batch, "epochs": None, "lr_group": "convnet"}
        records.write_record(tmp_path, record)
    page = build(records.iter_records(tmp_path), tmp_path)
    cells = re.findall(r"<td>([^<]*)</td>", page.split("As resolved for the records")[1].split("</table>")[0])
    ours, theirs = ["convnet3_bn", "1", "10", "–", "convnet"], ["resnet18", "1", "64", "–", "convnet"]
    assert cells[2:] == [*ours, *cells[:2], *theirs]


def test_studies_are_on_the_page(results, tmp_path):
    study = tmp_path / "studies" / "depth"
    records.write_record(tmp_path, make_record())
    for seed in range(3):
        for method, top1 in (("random", 40), ("d3hr", 50)):
            records.write_record(study, make_record(method, seed, top1=top1 + seed, dataset="cifar10"))
    (study / "README.md").write_text("# How *deep*?\n\nOne [question](x.md)\nin two lines.\n\n```\nddbench run\n```\n")
    part = build(records.iter_records(tmp_path), tmp_path).split('id="studies"')[1].split("</section>")[0]
    assert "<summary>How deep?</summary>" in part and "One question in two lines." in part
    assert "Best of 1 setting: d3hr in 1 (+10.0 points" in part and "cifar10, protocol" in part


def test_classes_stand_side_by_side_in_one_grid(tmp_path):
    """A method's column is cut from its contact sheet, whatever its names and images look like."""
    from benchmark.results.report import pictures
    from benchmark.results.report.pictures import layout
    from benchmark.sets.folder import SHEET_COLUMNS, SHEET_ROWS, contact_sheet

    assert (pictures.SHEET_ROWS, pictures.SHEET_COLUMNS) == (SHEET_ROWS, SHEET_COLUMNS)
    for side, names, ipc in ((8, list("0123456789"), 10), (28, ["T-shirt", "Ankle boot", "i"], 1), (64, ["a"], 2)):
        thumbs = {(c, i): np.full((side, side, 3), 40 + c, np.uint8) for c in range(len(names)) for i in range(ipc)}
        sheet = contact_sheet(thumbs, names, list(range(len(names))))
        margin, cell, count = layout(sheet, ipc)
        assert (cell, count) == (64 // side * side, len(names))
        assert sheet.getpixel((margin, 2)) == (40, 40, 40) and sheet.getpixel((margin - 1, 2)) == (255, 255, 255)
    assert layout(Image.effect_noise((300, 200), 50).convert("RGB"), 1) is None


def test_every_board_draws_its_paired_differences(page):
    board = page.split('class="board" data-dataset="digits" data-protocol="hard"')[2].split("</table>")[0]
    assert board.count('class="to-random"') == board.count('class="to-best"') == 3 * 6  # methods; students, IPC values
    assert "kmeans − random: +6.0 ± " in board and "kmeans − d3hr: -5.0 ± " in board


def test_the_page_begins_with_the_answer(page):
    """Before any board: who is best, by how much over random real images, at what cost, setting by setting."""
    first = page.split('class="filters"')[0]
    assert "Best of 24 settings: d3hr in 24 (+11.0 points over random real images, 10.0 s a set)" in first
    assert first.count('<div class="setting" ') == 24 and "12 more settings" in first
    row = first.split('data-dataset="fashionmnist" data-protocol="hard" data-student="resnet18" data-ipc="10"')[1]
    assert "<strong>d3hr</strong>" in row.split("</div>")[0] and 'class="level"' in row.split("</div>")[0]
    assert 'href="#dataset=fashionmnist&amp;protocol=hard&amp;student=resnet18&amp;ipc=10"' in row


def test_command(results, tmp_path):
    run = CliRunner()
    made = run.invoke(command, ["--results", str(results), "--out", str(tmp_path / "r.html"), "--title", "A & B"])
    assert made.exit_code == 0 and "A &amp; B" in (tmp_path / "r.html").read_text()
    with pytest.raises(MissingError):
        run.invoke(command, ["--results", str(tmp_path)], catch_exceptions=False)
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "bad.json").write_text("{}")
    with pytest.raises(DataError):
        run.invoke(command, ["--results", str(tmp_path)], catch_exceptions=False)


def test_a_picture_outside_the_folder_is_not_read(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    record = make_record()
    record["artifacts"]["contact_sheet"] = "link.png"
    records.write_record(tmp_path / "results", record)
    (tmp_path / "results" / "link.png").symlink_to("../secret.png")
    assert "data:image/png" not in build(records.iter_records(tmp_path / "results"), tmp_path / "results")


def data_of(page):
    return json.loads(re.search(r'id="data"[^>]*>(.*?)</script>', page, re.DOTALL)[1])["rows"]


def test_a_set_evaluated_under_a_methods_name_has_its_own_curve_and_picture(tmp_path):
    (tmp_path / "sets").mkdir()
    for name, top1, created in (("own", 80.0, "2026-01-01"), ("given", 20.0, "2026-01-02")):
        Image.new("RGB", (8, 8), (int(top1), 0, 0)).save(tmp_path / "sets" / f"{name}.png")
        for seed in range(2):
            record = make_record(seed=seed, top1=top1)
            record["identity"]["set"] = name if name == "given" else record["identity"]["set"]
            record["artifacts"]["contact_sheet"] = f"sets/{name}.png"
            record["provenance"]["created"] = created
            records.write_record(tmp_path, record)
    page = build(records.iter_records(tmp_path), tmp_path)
    assert {row["set"]: row["curve"] for row in data_of(page)} == {
        "": [[10, 40.0], [20, 80.0]], "given": [[10, 10.0], [20, 20.0]],
    }  # fmt: skip
    assert len(set(re.findall(r"data:image/png;base64,[^\"]+", page))) == 2
    assert "d3hr, seed 0" in page and "d3hr (set given), seed 0" in page


def thousand_cells():
    for dataset in ("digits", "fashionmnist"):
        for m in range(50):
            for ipc in (1, 2, 5, 10, 50):
                for student in ("convnet3_bn", "resnet18"):
                    for seed in range(3):
                        record = make_record(
                            "random" if m == 0 else f"m{m}", seed, dataset=dataset, ipc=ipc, student=student,
                            protocol="hard", top1=20 + m + 0.1 * ipc + seed, distill_seconds=1.0 + m * ipc,
                        )  # fmt: skip
                        record["scores"]["curve"] = [[e, 20.0 + m * e / 300, 50.0] for e in range(10, 301, 10)]
                        yield records.sealed(record)


def test_thousand_cells_stay_small_and_interactive(tmp_path):
    page = build(thousand_cells(), tmp_path)
    assert '"rows":[]' not in page and len(page.encode()) < 10_000_000
    if not (CHROMIUM and DRIVER):
        return
    (tmp_path / "page.html").write_text(page)
    with headless() as browser:
        browser.open(tmp_path / "page.html")
        assert browser.run("return document.querySelectorAll('#rows tr').length") == 1000
        slow = browser.run("""
            const start = performance.now();
            const select = document.getElementById('f-student');
            select.value = 'resnet18';
            select.dispatchEvent(new Event('input'));
            return performance.now() - start;""")
        assert slow < 10_000  # about 300 on an idle machine
        assert browser.run("return document.querySelectorAll('#rows tr').length") == 500


needs_browser = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no headless Chromium here")


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    if not (CHROMIUM and DRIVER):
        pytest.skip("no headless Chromium here")
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(page)
    with headless() as found:
        found.size(1280)
        found.open(file)
        yield found


def column(browser, name):
    return browser.run(
        """const all = [...document.querySelectorAll('#head button')];
        const i = all.findIndex((b) => b.dataset.sort === arguments[0]);
        return [...document.querySelectorAll('#rows tr')].map((tr) => tr.children[i].textContent);""",
        name,
    )


@needs_browser
def test_no_console_errors_and_no_requests(browser):
    assert [e for e in browser.log("browser") if e["level"] in ("SEVERE", "WARNING")] == []
    asked = [
        m.split('"url":"')[1].split('"')[0]
        for m in (e["message"] for e in browser.log("performance"))
        if "Network.requestWillBeSent" in m and '"url":"' in m
    ]
    assert all(url.startswith(("file:", "data:")) for url in asked)


@needs_browser
def test_tables_sort_and_filter(browser):
    def click(name):
        browser.run("document.querySelector(`#head [data-sort=${arguments[0]}]`).click()", name)

    def choose(name, value):
        browser.run(
            """const s = document.getElementById('f-' + arguments[0]); s.value = arguments[1];
            s.dispatchEvent(new Event('input'));""",
            name,
            value,
        )

    scores = [float(x.split()[0]) for x in column(browser, "top1_last") if x[0].isdigit()]
    assert scores == sorted(scores, reverse=True) and len(scores) == 72
    assert column(browser, "top1_last")[-1] == "failed"
    click("top1_last")
    scores = [float(x.split()[0]) for x in column(browser, "top1_last") if x[0].isdigit()]
    assert scores == sorted(scores)
    click("label")
    assert column(browser, "label") == sorted(column(browser, "label"))
    choose("dataset", "digits")
    choose("protocol", "hard")
    choose("ipc", "10")
    assert set(column(browser, "dataset")) == {"digits"} and set(column(browser, "ipc")) == {"10"}
    titles = browser.run("""return [...document.querySelectorAll('section[data-group] h3')]
        .filter((h) => h.offsetParent).map((h) => h.textContent);""")
    assert titles and not any("fashionmnist" in t for t in titles)
    choose("q", "kmea")
    assert set(column(browser, "label")) == {"kmeans"} and len(column(browser, "label")) == 2
    browser.run("document.getElementById('reset').click()")
    assert len(column(browser, "label")) == 73


@needs_browser
def test_plots_are_drawn_one_panel_a_dataset_and_protocol(browser):
    count = "return document.querySelectorAll(arguments[0]).length"
    assert browser.run(count, "#cost figure") == 4 * 3  # IPC values, of the first student
    assert browser.run(count, "#cost .level") == 12 + 1  # random real images: a line across; one key
    assert browser.run(count, "#ipc figure") == 8
    assert browser.run(count, "#heat table") == 12
    assert browser.run(count, "#training polyline") == 0  # until they are asked for
    browser.run("document.querySelector('#curves summary').click()")
    time.sleep(0.5)
    assert browser.run(count, "#training polyline") == 4 * 6 * 3  # two students, three IPC values; three methods
    script = "return [...document.querySelectorAll('svg:not(.strip)')].map((s) => s.getBoundingClientRect().width)"
    widths = browser.run(script)
    assert min(w for w in widths if w > 26) > 200  # 26: a mark in a key
    labels = browser.run("return [...document.querySelectorAll('figure > svg')].map((s) => s.textContent)")
    assert labels and all("points over random" in text or "top-1 %" in text for text in labels)


@needs_browser
def test_a_filtered_view_has_an_address(browser):
    """What is chosen stands in the address; the address restores it; a link of the contents leaves it."""
    shown = """return [...document.querySelectorAll('.board')].filter((b) => b.offsetParent && !b.closest('details'))
        .map((b) => b.dataset.dataset + ' ' + b.dataset.protocol);"""
    browser.run("""for (const [name, value] of [['f-dataset', 'digits'], ['f-ipc', '10']]) {
            document.getElementById(name).value = value;
            document.getElementById(name).dispatchEvent(new Event('input'));
        }""")
    address = browser.run("return location.hash")
    assert address == "#dataset=digits&ipc=10" == browser.run("return document.getElementById('link').hash")
    browser.run("document.getElementById('reset').click()")
    assert browser.run("return location.hash") == "" and len(browser.run(shown)) == 5
    browser.run("location.hash = arguments[0]", "#dataset=fashionmnist&protocol=soft&from=best&y=top1&student=gone")
    time.sleep(0.3)
    assert browser.run(shown) == ["fashionmnist soft"] and browser.run("return document.body.dataset.from") == "best"
    assert browser.run("return getComputedStyle(document.querySelector('.board .to-random')).display") == "none"
    assert browser.run("return document.querySelector('#cost figure > svg').textContent").startswith("top-1 %")
    browser.run("location.hash = 'at=results'")
    time.sleep(0.3)
    assert browser.run("return document.querySelector('#results details').open") and len(browser.run(shown)) == 1
    browser.run("document.getElementById('reset').click(); document.querySelector('#results details').open = false")


@needs_browser
def test_the_answer_stands_on_the_first_screen_and_the_page_is_short(browser):
    bottom = (
        "return document.querySelectorAll('#answer .setting:not(.heads)')[arguments[0]].getBoundingClientRect().bottom"
    )
    for width, height in ((1280, 800), (390, 844)):
        browser.size(width, height)
        browser.run("scrollTo(0, 0)")
        assert browser.run(bottom, 8) + browser.run("return scrollY") <= height
    browser.size(1280)
    assert browser.run("return document.documentElement.scrollHeight") <= 6000


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_and_is_readable_in_both_schemes(browser, width):
    browser.size(width)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    narrow = browser.run("""return [...document.querySelectorAll('td:first-child')].filter((t) => t.offsetParent)
        .map((t) => t.getBoundingClientRect().width);""")
    assert min(narrow) > 60  # names are not squeezed into a column of letters
    colours = []
    for dark in (False, True):
        browser.dark(dark)
        colours.append(browser.run("const s = getComputedStyle(document.body); return [s.backgroundColor, s.color];"))
    browser.dark(False)
    browser.size(1280)
    assert colours[0] != colours[1]
    for back, ink in colours:
        light = [sum(map(int, re.findall(r"\d+", c)[:3])) for c in (back, ink)]
        assert abs(light[0] - light[1]) > 500


def many_methods():
    for m in range(18):
        for ipc in (1, 10):
            record = make_record(f"m{m:02}", 0, ipc=ipc, top1=30 + 2 * m, distill_seconds=0.0 if m == 3 else 2.0**m)
            record["scores"]["curve"] = [[300, 30 + 2 * m, 90.0]]
            yield records.sealed(record)


@needs_browser
def test_many_methods_can_be_told_apart_and_single_epochs_are_no_curve(tmp_path):
    (tmp_path / "page.html").write_text(build(many_methods(), tmp_path))
    with headless() as browser:
        browser.size(1280)
        browser.open(tmp_path / "page.html")
        for plot in ("cost", "ipc"):
            keys = browser.run(
                """return [...document.querySelector('#' + arguments[0] + ' .key').children].map((item) => [
                    item.textContent, [...item.querySelectorAll('svg *')].map((n) => n.tagName + n.getAttribute('fill')
                    + n.getAttribute('stroke') + n.getAttribute('stroke-dasharray') + n.getAttribute('d')).join()]);""",
                plot,
            )
            assert len(keys) == 18 and len({sign for _, sign in keys}) == 18  # m03 took no time, and is there
            assert [name for name, _ in keys] == [f"m{m:02}" for m in range(17, -1, -1)]  # best first
        hidden = "return document.getElementById(arguments[0]).closest('section').hidden"
        assert browser.run(hidden, "training") and browser.run(hidden, "heat") and not browser.run(hidden, "ipc")


def two_teachers():
    for name, key, more in (("convnet4", "a", 0), ("convnet4", "b", 20), ("resnet18", "c", 40)):
        for method, top1 in (("random", 20), ("d3hr", 30)):
            for student in ("convnet3_bn", "resnet18"):
                teacher = {"name": name, "key": key * 64}
                record = make_record(method, student=student, teacher=teacher, top1=top1 + more)
                yield records.sealed(record)


@needs_browser
def test_results_of_several_teachers_stand_in_panels_of_their_own(tmp_path):
    (tmp_path / "page.html").write_text(build(two_teachers(), tmp_path))
    with headless() as browser:
        browser.size(1280)
        browser.open(tmp_path / "page.html")
        browser.run("document.querySelector('#curves summary').click()")
        time.sleep(0.5)
        for section in ("cost", "heat", "training"):
            captions = browser.run(
                "return [...document.querySelectorAll('#' + arguments[0] + ' figcaption')].map((n) => n.textContent)",
                section,
            )
            for teacher in ("convnet4 aaaaaa", "convnet4 bbbbbb", "resnet18 cccccc"):
                assert sum(f"IPC 1, teacher {teacher}" in c for c in captions) == (2 if section == "training" else 1)
        values = browser.run("return [...document.querySelectorAll('#heat td')].map((n) => n.textContent)")
        assert {f"{v}.0" for v in (20, 30, 40, 50, 60, 70)} <= set(values)


def test_protocols_of_before_and_with_changes_are_shown_from_what_is_known():
    """Registered ones are explained, changed ones made of both, old ones shown as their records hold them."""
    from benchmark.core.store.keys import digest_of
    from benchmark.results.report.tables import protocols

    changed, old = load_protocol("hard", {"steps": "200"}), {**load_protocol("soft").document(), "batch": 7654}
    used = {("hard", "2", load_protocol("hard").digest): {}, (changed.name, "2", changed.digest): {}}
    used |= {("soft", "1", digest_of(old)): old, ("rded-paper", "0", "f" * 64): {}}
    text = protocols(used, {})
    assert "hard: every field" in text and "hard+steps=200 v2: every field" in text
    assert "7654" in text and "soft v1: every field" in text
    assert "Neither registered here nor in the records: rded-paper v0." in text
