"""The gRPC carrier of weights: what a role imports. Loads neither torch nor the server."""

from headrace.common.weights.follower import GrpcFollower
from headrace.common.weights.publisher import GrpcPublisher
from headrace.common.weights.subscriber import GrpcSubscriber

__all__ = ["GrpcFollower", "GrpcPublisher", "GrpcSubscriber"]
