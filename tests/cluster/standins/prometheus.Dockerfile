# Prometheus from Debian's package, with the paths, the user and the entry point of the image prom/prometheus.
FROM python:3.11-slim-bookworm
RUN apt-get update -qq \
    && apt-get install -qq --no-install-recommends busybox prometheus \
    && rm -rf /var/lib/apt/lists/* /etc/prometheus \
    && ln -s /bin/busybox /usr/bin/wget \
    && mkdir -p /etc/prometheus /prometheus \
    && chown nobody /prometheus
USER nobody
EXPOSE 9090
VOLUME ["/prometheus"]
WORKDIR /prometheus
ENTRYPOINT ["/usr/bin/prometheus"]
