"""A client that knows nothing of the fleet but its address and the admin's certificate: it reads the contract by
reflection, runs a project, and follows the run. Prints one JSON object.

usage: grpc_client.py HOST:PORT ADMIN_DIR
"""
import json
import pathlib
import sys

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

# For the health service, whose messages come by reflection as well.
HEALTH = "grpc.health.v1.HealthCheckRequest", "grpc.health.v1.HealthCheckResponse"


def main(server: str, admin: pathlib.Path) -> None:
    credentials = grpc.ssl_channel_credentials(
        root_certificates=(admin / "ca.pem").read_bytes(),
        private_key=(admin / "admin.key").read_bytes(),
        certificate_chain=(admin / "admin.pem").read_bytes(),
    )
    with grpc.secure_channel(server, credentials) as channel:
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))

        def message(name: str):
            return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))

        def unary(path: str, request, answer: str):
            call = channel.unary_unary(
                path, request_serializer=lambda m: m.SerializeToString(), response_deserializer=message(answer).FromString
            )
            return call(request, timeout=30)

        listed = unary(
            "/mirror.v1.ProjectService/ListProjects",
            message("mirror.v1.ListProjectsRequest")(),
            "mirror.v1.ListProjectsResponse",
        )
        names = [project.name for project in listed.projects]
        started = unary(
            "/mirror.v1.ProjectService/RunProject",
            message("mirror.v1.RunProjectRequest")(name=names[0]),
            "mirror.v1.RunProjectResponse",
        )
        watch = channel.unary_stream(
            "/mirror.v1.RunService/WatchRun",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=message("mirror.v1.WatchRunResponse").FromString,
        )
        states = pool.FindEnumTypeByName("mirror.v1.Run.State").values_by_number
        state = ""
        for answer in watch(message("mirror.v1.WatchRunRequest")(name=started.run.name), timeout=60):
            state = states[answer.run.state].name
        health = unary("/grpc.health.v1.Health/Check", message(HEALTH[0])(service=""), HEALTH[1])
        serving = health.DESCRIPTOR.fields_by_name["status"].enum_type.values_by_number[health.status].name
    print(json.dumps({"projects": names, "state": state, "health": serving}))


main(sys.argv[1], pathlib.Path(sys.argv[2]))
