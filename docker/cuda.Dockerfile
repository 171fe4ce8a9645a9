# docker build -f docker/cuda.Dockerfile -t slimdiffsr:cuda .
# docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/data" slimdiffsr:cuda upscale scene.tif out.tif
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src src
RUN pip wheel --no-deps --wheel-dir /wheels .

# PyPI's PyTorch for Linux brings CUDA's libraries along: the driver of the host is all that is missing.
FROM python:3.12-slim
COPY --from=build /wheels /wheels
COPY constraints.txt /wheels/
RUN pip install --no-cache-dir -c /wheels/constraints.txt /wheels/*.whl && rm -r /wheels
ENV HOME=/tmp \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /data
ENTRYPOINT ["slimdiffsr"]
CMD ["--help"]
