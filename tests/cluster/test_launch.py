"""Ray's own launcher takes aws.yaml to EC2 (a simulated one): every group's nodes start, and are what the file says."""

import copy

import boto3
import pytest
from moto import mock_aws
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.cluster_files import GROUPS, aws


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """Yield the launcher's whole config and a started node of each group by name; the cloud lasts for the module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # the launcher leaves its ssh key there
        patch.setenv("AWS_ACCESS_KEY_ID", "key-of-the-tests")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-tests")
        with mock_aws():
            for profile in ("mama-ray-head", "mama-ray-worker"):
                boto3.client("iam", region_name="us-east-1").create_instance_profile(InstanceProfileName=profile)
            config = prepare_config(aws())
            validate_config(config)
            config = bootstrap_aws(AWSNodeProvider.fillout_available_node_types_resources(config))
            provider = AWSNodeProvider(config["provider"], config["cluster_name"])
            nodes = {}
            for name, facts in config["available_node_types"].items():
                tags = {"ray-node-type": "head" if name == "head" else "worker", "ray-user-node-type": name}
                started = provider.create_node(copy.deepcopy(facts["node_config"]), tags, 1)
                nodes[name] = next(iter(started.values()))
            yield config, nodes


def test_a_node_of_every_group_starts_with_its_rights(launched):
    _, nodes = launched
    assert set(nodes) == {"head", *GROUPS}
    profiles = {name: node.iam_instance_profile["Arn"].rpartition("/")[2] for name, node in nodes.items()}
    assert profiles == {"head": "mama-ray-head"} | dict.fromkeys(GROUPS, "mama-ray-worker")
    assert {name: node.instance_type for name, node in nodes.items()} == {
        name: facts["node_config"]["InstanceType"] for name, facts in aws()["available_node_types"].items()
    }


def test_machines_have_the_cpus_and_gpus_that_the_file_says(launched):
    config = aws()
    for facts in config["available_node_types"].values():
        facts["resources"] = {}
    found = AWSNodeProvider.fillout_available_node_types_resources(config)["available_node_types"]
    for name in GROUPS:
        said = aws()["available_node_types"][name]["resources"]
        assert {kind: found[name]["resources"].get(kind) for kind in ("CPU", "GPU")} == {
            kind: said.get(kind) for kind in ("CPU", "GPU")
        }


def test_nobody_but_the_cluster_and_ssh_gets_in(launched):
    config, _ = launched
    (group,) = {tuple(facts["node_config"]["SecurityGroupIds"]) for facts in config["available_node_types"].values()}
    rules = boto3.client("ec2", region_name="us-east-1").describe_security_groups(GroupIds=list(group))
    open_ports = [
        (rule.get("FromPort"), rule.get("ToPort"))
        for found in rules["SecurityGroups"]
        for rule in found["IpPermissions"]
        if any(span["CidrIp"] == "0.0.0.0/0" for span in rule.get("IpRanges", []))
    ]
    assert open_ports == [(22, 22)]
