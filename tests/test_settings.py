"""Settings of runs: what they refuse, which lanes share a program, and that a command line says all of them."""

import shlex
from dataclasses import fields, replace

import pytest
import tyro

from experiments.settings import Run, from_configuration


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"method": "dsgd_act"}, "dsgd_atc"),
        ({"nodes": 0}, "nodes must be an integer of at least 1"),
        ({"nodes": True}, "nodes must be an integer"),
        ({"steps": 3, "records": 4}, "records: at most one a step"),
        ({"nodes": 6, "devices": 4}, "6 nodes do not divide by 4 devices"),
        ({"drops": 1.0}, "drops must lie in"),
        ({"noise": 0.1, "delay": 1}, "either noisy or late"),
        ({"churn": float("nan")}, "churn must be a finite number"),
        ({"learning_rate": float("inf")}, "learning_rate must be a finite number"),
        ({"schedule": "cosin"}, "cosine"),
        ({"evaluate": "men"}, "mean"),
        ({"stop_axis": "second"}, "seconds"),
        ({"method": "dsgd_momentum", "hyperparameters": {"momntum": 0.5}}, "momentum"),
        ({"method": "extra", "hyperparameters": {"momentum": 0.5}}, "extra has none"),
        ({"method": "dsgd_momentum", "hyperparameters": {"momentum": float("nan")}}, "must be finite"),
        ({"method": "dsgd_momentum", "hyperparameters": {"momentum": "high"}}, "must be a number, got 'high'"),
        ({"method": "choco_sgd", "hyperparameters": {"compressor": "topk:0.1"}}, "Did you mean top_k"),
        ({"method": "choco_sgd", "hyperparameters": {"compressor": "top_k:2.5"}}, "is no compressor"),
    ],
)
def test_what_does_not_fit_is_named(changed, said):
    with pytest.raises(ValueError, match=said):
        Run(**changed)


def test_unknown_settings_and_types_of_a_file_are_named():
    with pytest.raises(ValueError, match="learning_rate"):
        from_configuration({"learningrate": 0.1})
    with pytest.raises(ValueError, match="nodes must be of type int, got '4'"):
        from_configuration({"nodes": "4"})


def test_a_configuration_gives_the_run_again():
    run = Run(method="quasi_global_momentum", hyperparameters={"momentum": 0.7}, learning_rate=1, drops=0.1)
    assert from_configuration(run.configuration).configuration == replace(run, learning_rate=1.0).configuration


def test_lanes_share_a_program_exactly_if_they_differ_in_numbers_only():
    run = Run(method="dsgd_momentum", hyperparameters={"momentum": 0.5})
    assert replace(run, learning_rate=0.3, seed=5, hyperparameters={"momentum": 0.9}).program == run.program
    for name in ("graph", "task", "nodes", "world", "batch", "steps"):
        value = getattr(run, name)
        other = value + 1 if isinstance(value, int) else "digits/cnn" if name == "task" else "star"
        assert replace(run, **{name: other}).program != run.program, name


def test_the_command_line_says_every_setting():
    other = Run(
        task="digits/cnn", method="dsgd_momentum", nodes=8, graph="star", weights="max_degree", partition="by_label",
        steps=50, learning_rate=0.03, hyperparameters={"momentum": 0.75}, batch=4, schedule="cosine", warmup=0.1,
        augment=True, batch_norm="gossiped", average=0.9, evaluate="mean", held_out=100, records=3, cluster="weak",
        energy="server_gpu", drops=0.1, delay=3, churn=0.2, seed=3, world=4, microbatch=2, devices=2,
        stop_at=9.0, stop_axis="seconds",
    )  # fmt: skip
    plain = Run()
    assert all(getattr(other, item.name) != getattr(plain, item.name) for item in fields(Run) if item.name != "noise")
    words = shlex.split(other.command)
    assert words[:4] == ["python", "-m", "experiments", "run"]
    assert tyro.cli(Run, args=words[4:]) == other


def test_a_real_hyper_parameter_may_be_written_as_an_integer():
    run = Run(method="dsgd_momentum", hyperparameters={"momentum": 0})
    assert run.lane == {"learning_rate": 0.1, "momentum": 0.0}
    assert Run(method="power_sgd", hyperparameters={"rank": 2}).shared == {"rank": 2}
