# docker build -f docker/cpu.Dockerfile -t slimdiffsr .
# docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" slimdiffsr upscale scene.tif scene_x4.tif
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src src
RUN pip wheel --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
COPY --from=build /wheels /wheels
COPY constraints.txt /wheels/
# PyTorch's own index has a build without CUDA, a tenth as large.
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
      -c /wheels/constraints.txt /wheels/*.whl && rm -r /wheels
ENV HOME=/tmp
WORKDIR /data
ENTRYPOINT ["slimdiffsr"]
CMD ["--help"]
