# docker build -t car-jax [--build-arg EXTRAS=cuda,gcs] .    then: docker run car-jax train --help
FROM python:3.12-slim
ARG EXTRAS=""
COPY . /src
RUN pip install --no-cache-dir "/src${EXTRAS:+[$EXTRAS]}"
WORKDIR /work
ENTRYPOINT ["car-jax"]
