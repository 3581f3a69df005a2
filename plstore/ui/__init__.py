"""The local app: pseudo-labels, looked at. `plstore ui` opens it.

Modules of this folder are plain functions from a snapshot to small typed rows; `pages` draws
them, and `server` lets only this machine's own user in.
"""
