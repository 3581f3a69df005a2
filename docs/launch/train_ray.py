"""python train_ray.py RECIPE STORE WORKERS: on a Ray cluster, with its GPUs if it has any."""

import sys
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer


def train(asked: dict[str, Any]) -> None:
    import plstore
    from trainers.processes import join

    recipe = plstore.load_recipe(asked["recipe"])
    plstore.run(recipe, asked["store"], processes=join())


if __name__ == "__main__":
    name, store, workers = sys.argv[1:]
    ray.init()
    gpu = "GPU" in ray.cluster_resources()
    backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
    TorchTrainer(
        train,
        train_loop_config={"recipe": name, "store": store},
        scaling_config=ScalingConfig(num_workers=int(workers), use_gpu=gpu),
        torch_config=TorchConfig(backend, timeout_s=7 * 24 * 3600),
        run_config=RunConfig(failure_config=FailureConfig(max_failures=20)),
    ).fit()
