# Builds the program and puts it, alone, on the C library. Needs BuildKit (docker build, podman build).
# docker build --tag s3dedup . && docker run --publish 8080:8080 --volume s3dedup:/app/data --read-only s3dedup
FROM rust:1-slim-bookworm AS build
# The image is for running: names of functions stay for backtraces, the rest of the debug information goes.
ENV CARGO_PROFILE_RELEASE_STRIP=debuginfo
WORKDIR /src
COPY . .
# The caches keep what cargo fetched and built from one build to the next.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked \
    && install -D -m 0755 target/release/s3dedup /out/s3dedup \
    && install -d -m 0750 /out/app/data

# No shell, no package manager: /tmp, the C library, certificates, time zones.
FROM gcr.io/distroless/cc-debian12:nonroot
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="s3dedup" \
      org.opencontainers.image.description="A Filetracker-compatible server that stores every content once, on S3 or a local folder" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /out/s3dedup /usr/local/bin/s3dedup
# A new volume takes owner and mode from this folder.
COPY --from=build --chown=10001:10001 /out/app /app
ENV PATH=/usr/local/bin:/usr/bin:/bin \
    DATA_DIR=/app/data \
    SQLITE_PATH=/app/data/kv.db \
    LISTEN_PORT=8080
USER 10001:10001
WORKDIR /app
VOLUME /app/data
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=6s --start-period=40s --retries=3 CMD ["s3dedup", "healthcheck"]
ENTRYPOINT ["s3dedup"]
CMD ["server", "--env"]
