"""The stage store: results keyed by what determines them, written atomically, verified when read."""

from benchmark.core.store.keys import Stage, canonical_json, digest_file, digest_of
from benchmark.core.store.store import MANIFEST, Store, default_cache

__all__ = ["MANIFEST", "Stage", "Store", "canonical_json", "default_cache", "digest_file", "digest_of"]
