"""Reads what a server says to Prometheus from standard input, as Prometheus would; prints one line per sample:
the name, the type and the labels. Fails on anything that is out of order."""

import sys

from prometheus_client.parser import text_string_to_metric_families

text = sys.stdin.read()
assert text.endswith("\n"), "the last line must end"
seen = set()
for family in text_string_to_metric_families(text):
    assert family.type in ("counter", "gauge", "histogram"), family
    assert family.documentation and family.name.startswith("s3dedup_"), family
    assert family.name not in seen, f"{family.name} comes twice"
    seen.add(family.name)
    labels = set()
    for sample in family.samples:
        key = (sample.name, tuple(sorted(sample.labels.items())))
        assert key not in labels, f"{key} comes twice"
        labels.add(key)
        assert sample.value == sample.value and abs(sample.value) != float("inf"), sample
        if family.type != "gauge":
            assert sample.value >= 0, sample
        if family.type == "counter":
            assert sample.name.endswith(("_total", "_runs")), sample
        print(sample.name, family.type, sample.labels)
assert seen, "nothing was told"
