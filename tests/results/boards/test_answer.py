from synthetic import make_record

from benchmark.results.boards import rows
from benchmark.results.boards.answer import BETTER, FLOOR, UNDECIDED, UNKNOWN, answers, sentence
from benchmark.results.boards.boards import boards


def found(*results):
    """Answers of (method, scores by seed) in one column."""
    made = [make_record(m, seed, top1=top1) for m, scores in results for seed, top1 in enumerate(scores)]
    return answers(boards(rows(made)))


RANDOM = ("random", (50.0, 50.2, 49.8, 50.1))


def test_the_answer_is_the_best_with_what_the_tests_say_of_it():
    (sure,) = found(("a", (60.0, 60.3, 59.9, 60.2)), ("b", (55.0, 55.2, 54.9, 55.3)), RANDOM)
    assert [line.label for line in sure.lines] == ["a", "b", "random"]
    assert sure.against_random == BETTER and not sure.equals
    (open_,) = found(("a", (40.0, 62.0, 58.0, 45.0)), RANDOM)
    assert open_.lines[0].label == "a" and open_.against_random == UNDECIDED and open_.equals == ["random"]
    (floor,) = found(("a", (40.0, 40.3, 39.9, 40.2)), RANDOM)
    assert floor.lines[0].label == "random" and floor.against_random == FLOOR
    assert found(("a", (60.0,)), ("random", (50.0,)))[0].against_random == UNKNOWN
    assert found(RANDOM) == []


def test_the_sentence_names_winner_gain_and_cost():
    text = sentence(found(("a", (60.0, 60.3, 59.9, 60.2)), RANDOM))
    assert text.startswith("Best of 1 setting: a in 1 (+10.1 points over random real images, 10.0 s a set); in 1 of 1")
    assert sentence([]) == ""
