"""The names of the files in a run's folder, the only bridge from training to use.

config.json            task, data, the command, every choice (defaults included)
processor.json         raw input -> arrays and outputs -> predictions, fitted
weights.safetensors    there when the training has ended
seen.safetensors       digests of the examples that training and validation used
metrics.jsonl          one line for the plan, for each look at validation, and for each time that training diverged
environment.json       what it ran on
check.json             what was in the data
evaluation.json        validation and test figures
description.json       what the task says of the run: names of its metrics, facts, intended use
card.md, report.html   for people
checkpoint/            there while the training has not ended
"""

from __future__ import annotations

CONFIG, PROCESSOR, WEIGHTS, SEEN = "config.json", "processor.json", "weights.safetensors", "seen.safetensors"
METRICS, ENVIRONMENT, CHECK, EVALUATION = "metrics.jsonl", "environment.json", "check.json", "evaluation.json"
DESCRIPTION, REPORT, CARD, CHECKPOINT = "description.json", "report.html", "card.md", "checkpoint"
