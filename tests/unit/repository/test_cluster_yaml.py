"""cluster.yaml, judged by Ray's own code. Nothing here talks to a cloud."""

import copy
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start

from conversation_actors.versions import NEWEST_TESTED

CLUSTER_FILE = Path(__file__).parents[3] / "cluster.yaml"

Config = dict[str, Any]


@pytest.fixture
def config() -> Config:
    """The file as it is written, without Ray's defaults."""
    loaded: Config = yaml.safe_load(CLUSTER_FILE.read_text())
    return loaded


def check(config: Config) -> Config:
    """What `ray up` does before it asks the cloud for anything."""
    prepared: Config = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def ray_start_options(command: str) -> Config:
    """Parse the `ray start` part of a shell command with Ray's own command line, without running it."""
    arguments = shlex.split(command.split("conversation-actors start ", maxsplit=1)[1])
    options: Config = start.make_context("start", arguments).params
    return options


def test_ray_accepts_the_file(config: Config) -> None:
    """`ray up` gets past its own validation."""
    prepared = check(config)

    assert prepared["head_node_type"] == "head"
    assert prepared["available_node_types"]["head"]["max_workers"] == 0


@pytest.mark.parametrize("key", ["cluster_name", "provider"])
def test_the_schema_needs_its_keys(config: Config, key: str) -> None:
    """The check is able to fail: without Ray's defaults, each required key is missed when it is gone."""
    del config[key]

    with pytest.raises(jsonschema.ValidationError, match=key):
        validate_config(config)


@pytest.mark.parametrize("key", ["head_node_type", "available_node_types"])
def test_half_of_the_node_types_is_refused(config: Config, key: str) -> None:
    """Ray's defaults do not stand in for one half of what belongs together."""
    del config[key]

    with pytest.raises(ValueError, match="head_node_type"):
        check(config)


def test_an_unknown_key_is_refused(config: Config) -> None:
    """A misspelt key does not pass silently."""
    config["max_worker"] = 3

    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        check(config)


@pytest.mark.parametrize("key", ["resources", "node_config"])
def test_a_node_type_needs_both_its_keys(config: Config, key: str) -> None:
    """A node type without resources or without a machine is refused."""
    del config["available_node_types"]["worker"][key]

    with pytest.raises(jsonschema.ValidationError, match=key):
        check(config)


def test_the_cluster_grows_by_conversations(config: Config) -> None:
    """Workers offer the resource that each conversation asks for; the head offers none."""
    types = check(config)["available_node_types"]

    assert types["head"]["resources"]["conversation"] == 0
    assert types["worker"]["resources"]["conversation"] > 0
    assert types["worker"]["max_workers"] > types["worker"]["min_workers"]


def test_ray_start_understands_its_options(config: Config) -> None:
    """Every option of the start commands exists in this Ray, and the head is told how to grow."""
    head = ray_start_options(config["head_start_ray_commands"][-1])
    worker = ray_start_options(config["worker_start_ray_commands"][-1])

    assert head["head"]
    assert head["autoscaling_config"] == "~/ray_bootstrap_config.yaml"
    assert worker["address"] == f"$RAY_HEAD_IP:{head['port']}"


def test_the_head_notices_lost_nodes_soon_and_forgets_dead_actors(config: Config) -> None:
    """The control store's settings are exported before it starts."""
    before_start = config["head_start_ray_commands"][-1].split("conversation-actors start")[0]
    exported = dict(word.split("=") for word in shlex.split(before_start) if word.startswith("RAY_"))

    assert int(exported["RAY_health_check_period_ms"]) == 500
    assert int(exported["RAY_health_check_timeout_ms"]) == 1000
    assert int(exported["RAY_health_check_failure_threshold"]) == 3
    assert int(exported["RAY_maximum_gcs_destroyed_actor_cached_count"]) < 100_000


@pytest.mark.parametrize("commands", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_every_node_knows_its_redis_and_asks_for_the_token(config: Config, commands: str) -> None:
    """Secrets come from mounted files that `ray up` refuses to miss, and none is written in cluster.yaml."""
    before_start = config[commands][-1].split("conversation-actors start")[0]

    assert ". /home/ray/conversation.env" in before_start
    assert "RAY_AUTH_MODE=token" in before_start
    assert {"/home/ray/conversation.env", "/home/ray/.ray/auth_token"} <= set(config["file_mounts"])


def test_the_head_archives_what_is_to_be_archived(config: Config) -> None:
    """Where a URL is set, `start --head` runs an archiver: it is not turned off, and its packages are installed."""
    assert "--no-archiver" not in config["head_start_ray_commands"][-1]
    assert any("[agent,archive,models]" in command for command in config["setup_commands"])
    assert "CONVERSATION_ARCHIVE_URL=postgresql+psycopg://" in CLUSTER_FILE.read_text()


def test_every_node_runs_the_newest_tested_ray(config: Config) -> None:
    """The image's Ray is the newest that this project was tested with, and the installation leaves it alone."""
    version = NEWEST_TESTED["ray"]
    assert config["docker"]["image"].startswith(f"rayproject/ray:{version}-py3")
    assert all(f"'ray=={version}'" in command for command in config["setup_commands"])
    assert any("conversation-actors" in command for command in config["setup_commands"])
