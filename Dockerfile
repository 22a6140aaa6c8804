FROM rust:1-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --user-group --no-create-home s3dedup \
    && install -d -o s3dedup -g s3dedup -m 0750 /app/data
COPY --from=build /src/target/release/s3dedup /usr/local/bin/s3dedup
ENV DATA_DIR=/app/data \
    SQLITE_PATH=/app/data/kv.db \
    LISTEN_PORT=8080
USER s3dedup
WORKDIR /app
VOLUME /app/data
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=6s --start-period=40s --retries=3 CMD ["s3dedup", "healthcheck"]
ENTRYPOINT ["s3dedup"]
CMD ["server", "--env"]
