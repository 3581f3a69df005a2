"""Where work that comes in shards is done: here, one after the other, or on a Ray cluster.

A step says what is done with a shard (`Work`) and which shards there are; an engine opens the
work once a worker, and gives back what came of each shard, in any order. What a worker writes
has a name that follows from what it holds, and nothing names it yet: a shard that is done twice
leaves the same file. The process that asked commits, alone.
"""

from trainers.engines.on_ray import Ray
from trainers.engines.work import HERE, Engine, Here, Work, heard, portions, uncounted

__all__ = ["HERE", "Engine", "Here", "Ray", "Work", "heard", "portions", "uncounted"]
