# Apache Kafka from its own jars, with the environment variables of the image apache/kafka: the class that reads them there
# (kafka.docker.KafkaDockerWrapper) is one of the jars. The folders, the user and the defaults are that image's too.
FROM python:3.11-slim-bookworm
RUN apt-get update -qq \
    && apt-get install -qq --no-install-recommends bash openjdk-17-jre-headless \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home --shell /bin/bash appuser \
    && mkdir -p /opt/kafka/config /etc/kafka/docker /etc/kafka/secrets /mnt/shared/config /var/lib/kafka/data \
    && chown -R appuser /opt/kafka /etc/kafka /mnt/shared /var/lib/kafka
COPY libs /opt/kafka/libs
COPY log4j2.yaml /etc/kafka/docker/
COPY run /etc/kafka/docker/
USER appuser
EXPOSE 9092
VOLUME ["/etc/kafka/secrets", "/var/lib/kafka/data", "/mnt/shared/config"]
CMD ["/etc/kafka/docker/run"]
