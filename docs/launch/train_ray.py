"""python train_ray.py WORKERS RECIPE --store STORE ...: `plstore run` on a Ray cluster."""

import sys
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer


def train(asked: dict[str, Any]) -> None:
    from plstore.cli.main import app

    app(["run", *asked["words"]], standalone_mode=False)


if __name__ == "__main__":
    ray.init()
    gpu = "GPU" in ray.cluster_resources()
    backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
    TorchTrainer(
        train,
        train_loop_config={"words": sys.argv[2:]},
        scaling_config=ScalingConfig(num_workers=int(sys.argv[1]), use_gpu=gpu),
        torch_config=TorchConfig(backend, timeout_s=7 * 24 * 3600),
        run_config=RunConfig(failure_config=FailureConfig(max_failures=20)),
    ).fit()
