"""``kafka://host:port[,host:port]/topic``: the topic is a durable log, the learner a materialised view of it.

    put -> codec -> BoundedProducer -> topic            kafka_sink.py, kafka_producer.py
    topic -> poll thread -> codec -> queue -> get       kafka_source.py
                     └> what cannot be decoded -> topic.dead

kafka_client.py knows addresses, login and sizes; kafka_topics.py makes and checks the topics. kafka_net.py,
kafka_records.py and kafka_batch.py replace the parts of the client library that cost most (bench/kafka_clients.py).
Nothing outside these files sees an error of that library.
"""

from headrace.common.transport.kafka_sink import KafkaSink
from headrace.common.transport.kafka_source import KafkaSource

__all__ = ["KafkaSink", "KafkaSource"]
