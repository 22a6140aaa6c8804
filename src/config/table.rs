//! The table of all settings: the one place to add, rename or bound one.

use super::setting::{Fallback, Kind, Setting};

const TIB: u64 = 1 << 40;
const PIB: u64 = 1 << 50;
const COUNT_MAX: u64 = 1_000_000;

/// The row every other row starts from.
const BASE: Setting = Setting {
    key: "",
    env: "",
    flag: None,
    default: Fallback::Fixed(""),
    kind: Kind::Text,
    unit: "",
    secret: false,
    help: "",
};

const fn row(key: &'static str, env: &'static str, default: &'static str, kind: Kind, help: &'static str) -> Setting {
    Setting { key, env, default: Fallback::Fixed(default), kind, help, ..BASE }
}

const fn number(
    key: &'static str,
    env: &'static str,
    default: &'static str,
    (min, max): (u64, u64),
    unit: &'static str,
    help: &'static str,
) -> Setting {
    Setting { unit, ..row(key, env, default, Kind::Integer { min, max }, help) }
}

const fn derived(rule: &'static str, example: &'static str, setting: Setting) -> Setting {
    Setting { default: Fallback::Derived { rule, example }, ..setting }
}

const fn optional(example: &'static str, setting: Setting) -> Setting {
    Setting { default: Fallback::Unset { example }, ..setting }
}

const fn secret(setting: Setting) -> Setting {
    Setting { secret: true, ..setting }
}

const fn flag(flag: &'static str, setting: Setting) -> Setting {
    Setting { flag: Some(flag), ..setting }
}

/// Every setting, in the order in which people meet them.
#[rustfmt::skip] // one setting a paragraph: key, environment, default, allowed; then what it is for
pub static SETTINGS: &[Setting] = &[
    flag("--log-level", row("logging.level", "LOG_LEVEL", "info",
        Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        "how much is logged; below trace, libraries only report warnings")),
    row("logging.json", "LOG_JSON", "false", Kind::Bool, "log one JSON object a line on standard error"),
    optional("/var/log/s3dedup/s3dedup.json", row("logging.json_path", "JSON_LOG_PATH", "", Kind::Path,
        "file that the server writes its log to as JSON objects, besides standard error; each instance needs its own")),
    row("logging.json_rotate", "JSON_LOG_ROTATE", "daily", Kind::Choice(&["daily", "size", "never"]),
        "when that file is put aside and a new one begun: every day in UTC, only when it gets too large, or by somebody else"),
    number("logging.json_max_bytes", "JSON_LOG_MAX_BYTES", "104857600", (1 << 16, TIB), "bytes",
        "largest such file; not with JSON_LOG_ROTATE=never"),
    number("logging.json_keep", "JSON_LOG_KEEP", "7", (0, 10_000), "",
        "such files put aside that stay; older ones are removed"),
    row("logging.access", "ACCESS_LOG", "false", Kind::Bool, "log a line for every request, whatever LOG_LEVEL is"),

    flag("--data-dir", row("data_dir", "DATA_DIR", "./data", Kind::Path,
        "folder of everything that has no place of its own")),
    row("kvstorage_type", "KVSTORAGE_TYPE", "sqlite", Kind::Choice(&["sqlite", "postgres"]),
        "where metadata lives: a local file, or a PostgreSQL server that several instances may share"),
    row("locks_type", "LOCKS_TYPE", "memory", Kind::Choice(&["memory", "postgres"]),
        "where locks live: in this process, or in the PostgreSQL server, for all instances alike"),
    number("locks.held_max", "LOCKS_HELD_MAX", "512", (2, 10_000), "",
        "locks of one instance in PostgreSQL; more wait. Many make its session slow, and a full lock table fails the \
         whole database"),
    derived("host name and port", "web1:8080", row("instance.id", "INSTANCE_ID", "", Kind::Text,
        "name of this instance among those that share a database; stays the same when it is started again")),
    derived("host name and port", "web1:8080", row("instance.address", "INSTANCE_ADDRESS", "", Kind::Text,
        "what `s3dedup instances` shows people as the address of this instance")),

    derived("kv.db in data_dir", "./data/kv.db", row("sqlite.path", "SQLITE_PATH", "", Kind::Path,
        "file of the metadata database")),
    number("sqlite.pool_size", "SQLITE_MAX_CONNECTIONS", "10", (3, 1024), "",
        "connections to the metadata database"),

    row("postgres.host", "POSTGRES_HOST", "localhost", Kind::Host, "host of the PostgreSQL server"),
    number("postgres.port", "POSTGRES_PORT", "5432", (1, 65535), "", "port of the PostgreSQL server"),
    row("postgres.user", "POSTGRES_USER", "postgres", Kind::Text, "role to log in as"),
    secret(optional("PASSWORD", row("postgres.password", "POSTGRES_PASSWORD", "", Kind::Text,
        "its password, if the server asks for one; here or by password_file"))),
    optional("/run/secrets/postgres_password", row("postgres.password_file", "POSTGRES_PASSWORD_FILE", "", Kind::Path,
        "file that holds the password")),
    row("postgres.dbname", "POSTGRES_DB", "s3dedup", Kind::Text, "database; it must exist, its tables are made"),
    number("postgres.pool_size", "POSTGRES_MAX_CONNECTIONS", "10", (1, 1024), "",
        "connections of this instance to the database; locks take one more"),
    row("postgres.sslmode", "POSTGRES_SSLMODE", "prefer", Kind::Choice(&["disable", "prefer", "require", "verify-full"]),
        "whether connections are encrypted; only verify-full makes sure who the server is"),
    optional("/etc/ssl/postgres-root.pem", row("postgres.sslrootcert", "POSTGRES_SSLROOTCERT", "", Kind::Path,
        "file of root certificates (PEM) that the server's must come from; unset: the public ones")),
    number("postgres.connect_timeout_seconds", "POSTGRES_CONNECT_TIMEOUT", "3", (1, 60), "seconds",
        "longest time to connect and log in"),
    number("postgres.statement_timeout_ms", "POSTGRES_STATEMENT_TIMEOUT", "4000", (100, 60_000), "milliseconds",
        "longest time of a statement; a client gets its 503 after 4.5 s even when this is longer"),
    row("postgres.transaction_pooling", "POSTGRES_TRANSACTION_POOLING", "false", Kind::Bool,
        "a transaction-pooling proxy stands in between: nothing is kept in a session, no prepared statements, no settings"),
    derived("postgres.host", "localhost", row("postgres.lock_host", "POSTGRES_LOCK_HOST", "", Kind::Host,
        "host that the lock session goes to, past such a proxy")),
    derived("postgres.port", "5432", number("postgres.lock_port", "POSTGRES_LOCK_PORT", "", (1, 65535), "",
        "port that the lock session goes to, past such a proxy")),

    row("bucket.name", "BUCKET_NAME", "default", Kind::Name, "name of the bucket that holds the contents"),
    flag("--listen-address", row("bucket.address", "LISTEN_ADDRESS", "0.0.0.0", Kind::Host, "address to listen on")),
    flag("--listen-port", number("bucket.port", "LISTEN_PORT", "8080", (0, 65535), "0 = any free port",
        "port to listen on")),
    derived("s3 if S3_ENDPOINT is set, else filesystem", "filesystem",
        row("bucket.s3storage_type", "STORAGE_TYPE", "", Kind::Choice(&["s3", "filesystem"]),
        "where contents live: an S3 bucket, or a folder in data_dir")),
    number("bucket.max_inmemory_size", "MAX_INMEMORY_SIZE", "67108864", (0, TIB), "bytes",
        "an upload larger than this goes on in a temporary file"),
    derived("tmp in data_dir", "./data/tmp", row("bucket.temp_dir", "TEMP_DIR", "", Kind::Path,
        "folder for temporary files of uploads")),

    optional("http://localhost:3900", row("bucket.s3.endpoint", "S3_ENDPOINT", "", Kind::Url,
        "address of the S3 server; required for s3")),
    secret(optional("ACCESS-KEY", row("bucket.s3.access_key", "S3_ACCESS_KEY", "", Kind::Text,
        "access key; required for s3, here or by access_key_file"))),
    optional("/run/secrets/s3_access_key", row("bucket.s3.access_key_file", "S3_ACCESS_KEY_FILE", "", Kind::Path,
        "file that holds the access key")),
    secret(optional("SECRET-KEY", row("bucket.s3.secret_key", "S3_SECRET_KEY", "", Kind::Text,
        "secret key; required for s3, here or by secret_key_file"))),
    optional("/run/secrets/s3_secret_key", row("bucket.s3.secret_key_file", "S3_SECRET_KEY_FILE", "", Kind::Path,
        "file that holds the secret key")),
    row("bucket.s3.region", "S3_REGION", "us-east-1", Kind::Text, "region that requests are signed for"),
    row("bucket.s3.force_path_style", "S3_FORCE_PATH_STYLE", "true", Kind::Bool,
        "bucket in the path instead of the host name"),
    row("bucket.s3.key_sharding.enabled", "S3_KEY_SHARDING_ENABLED", "true", Kind::Bool,
        "spread objects over prefixes (ab/cd/...)"),
    number("bucket.s3.key_sharding.depth", "S3_KEY_SHARDING_DEPTH", "2", (0, 8), "levels of two characters",
        "how many prefixes stand before an object's name"),

    row("filetracker.prefix", "FILETRACKER_PREFIX", "/ft", Kind::Prefix,
        "path in front of the Filetracker endpoints"),

    optional("/etc/s3dedup/tokens", row("access.tokens_file", "ACCESS_TOKENS_FILE", "", Kind::Path,
        "file of access tokens, made by `s3dedup token new`; clients must show one then. Unset: everybody may do everything")),
    row("access.public_read", "ACCESS_PUBLIC_READ", "false", Kind::Bool, "with tokens: files can be read and listed without one"),
    row("access.metrics", "ACCESS_METRICS", "admin", Kind::Choice(&["admin", "read-only", "everybody"]),
        "with tokens: who may see /metrics; read-only means every token, so that a scraper needs no more"),
    number("access.failures_per_minute", "ACCESS_FAILURES_PER_MINUTE", "60", (0, COUNT_MAX), "0 = no limit",
        "wrong tokens of one address (of IPv6: one network of 64 bits) that are answered by 401; more get 429"),
    optional("10.0.0.0/8", row("access.trusted_proxies", "TRUSTED_PROXIES", "", Kind::Networks,
        "proxies in front of this server: the X-Forwarded-For that they send tells who a client is")),
    optional("127.0.0.1:9090", row("access.admin_listen", "ADMIN_LISTEN", "", Kind::Listen,
        "address of a listener of its own for /metrics, /api and /ui, which are not served at the other one then")),
    secret(optional("TOKEN", row("access.admin_token", "ADMIN_TOKEN", "", Kind::Text,
        "token that `s3dedup stats` shows a running server; here or by admin_token_file"))),
    optional("/run/secrets/s3dedup_admin_token", row("access.admin_token_file", "ADMIN_TOKEN_FILE", "", Kind::Path,
        "file that holds that token")),

    optional("/etc/s3dedup/tls/cert.pem", row("tls.cert_file", "TLS_CERT_FILE", "", Kind::Path,
        "certificate of this server and those it was signed by (PEM); set: https only, at all listeners")),
    optional("/etc/s3dedup/tls/key.pem", row("tls.key_file", "TLS_KEY_FILE", "", Kind::Path,
        "its key (PEM, not encrypted)")),

    number("limits.request_slots_max", "REQUEST_SLOTS_MAX", "512", (1, COUNT_MAX), "",
        "requests inside at once; more get 503"),
    number("limits.max_logical_size", "MAX_LOGICAL_SIZE", "17179869184", (1, PIB), "bytes",
        "largest file, uncompressed; larger gets 413"),
    number("limits.spool_memory_max", "SPOOL_MEMORY_MAX", "268435456", (0, PIB), "bytes",
        "memory of all uploads together; past it they use temporary files"),
    number("limits.body_idle_seconds", "BODY_IDLE_SECONDS", "30", (1, 3600), "seconds",
        "longest silence in the middle of an upload"),
    number("limits.body_min_rate", "BODY_MIN_RATE", "1024", (0, 1 << 30), "bytes per second, 0 = off",
        "slowest allowed upload"),
    number("limits.stalled_reader_seconds", "STALLED_READER_SECONDS", "60", (1, 3600), "seconds",
        "how long a client may take nothing of a download, or less than about 200 KiB, before it is cut off and its slot is free"),
    number("limits.gone_client_seconds", "GONE_CLIENT_SECONDS", "60", (1, 3600), "seconds",
        "how long a client may acknowledge nothing that was sent to it, and not say that it has no room either, before its \
        connection is closed"),
    number("limits.connections_per_address_max", "CONNECTIONS_PER_ADDRESS_MAX", "0", (0, COUNT_MAX), "0 = no limit",
        "open connections of one address (of IPv6: one network of 64 bits), TRUSTED_PROXIES excepted; more get 429 or are closed"),
    number("limits.drain_seconds", "DRAIN_SECONDS", "30", (0, 3600), "seconds",
        "how long a stopping server lets requests finish"),
    number("limits.drain_delay_seconds", "DRAIN_DELAY_SECONDS", "1", (0, 3600), "seconds",
        "how long a stopping server serves new requests while /ready says that it stops, so that a balancer can \
        notice; then they get 503. Counts within DRAIN_SECONDS"),

    number("actors.uploader_pool_size", "UPLOADER_POOL_SIZE", "16", (1, 1024), "",
        "contents on their way to the store at once"),
    number("actors.upload_backlog_max", "UPLOAD_BACKLOG_MAX", "256", (1, COUNT_MAX), "",
        "contents waiting for an uploader; more get 503"),
    number("actors.metadata_backlog_max", "METADATA_BACKLOG_MAX", "1024", (1, COUNT_MAX), "",
        "metadata operations waiting; more get 503"),
    number("actors.http_workers", "HTTP_WORKERS", "0", (0, 512), "0 = one a core", "threads that speak HTTP"),
    number("actors.cpu_threads", "CPU_THREADS", "0", (0, 512), "0 = one a core", "threads that hash and compress"),
    number("actors.stuck_seconds", "STUCK_SECONDS", "30", (1, 3600), "seconds",
        "how long an actor's thread may be kept before the actor counts as stuck; after twice that time the process ends"),

    row("cleaner.enabled", "CLEANER_ENABLED", "true", Kind::Bool,
        "whether the server removes contents that no file uses any more"),
    number("cleaner.interval_seconds", "CLEANER_INTERVAL", "3600", (1, 31_536_000), "seconds",
        "pause between two runs of the cleaner"),
    number("cleaner.batch_size", "CLEANER_BATCH_SIZE", "1000", (1, 1000), "",
        "objects that the cleaner deletes by one request"),
    number("cleaner.max_deletes", "CLEANER_MAX_DELETES", "10000", (1, 1_000_000_000), "",
        "objects that one run deletes; the rest is left to the next run"),
    number("cleaner.concurrency", "CLEANER_CONCURRENCY", "8", (1, 64), "",
        "batches that the cleaner deals with at once"),
    number("cleaner.grace_seconds", "CLEANER_GRACE", "3600", (0, 31_536_000), "seconds",
        "how long a content stays after the last file that used it went; a download that takes longer may be cut"),
    optional("30 3 * * SUN", row("cleaner.full_scan_cron", "CLEANER_FULL_SCAN_CRON", "", Kind::Cron,
        "when objects and database are compared, and what differs is logged; unset: never")),

    number("cache.content_bytes", "CONTENT_CACHE_BYTES", "33554432", (0, PIB), "bytes, 0 = off",
        "memory for small contents that are read often"),
    number("compression.level", "COMPRESSION_LEVEL", "6", (0, 9), "0 = none, 9 = smallest",
        "how hard plain uploads are compressed"),

    number("export.interval_seconds", "EXPORT_INTERVAL", "0", (0, 31_536_000), "seconds, 0 = off",
        "pause between two exports of all names by the server; of several instances one exports"),
    derived("names.jsonl in data_dir", "/backup/names-{time}.jsonl", row("export.path", "EXPORT_PATH", "", Kind::Path,
        "file that such an export is written to, replaced as a whole; {time} in its name makes one file each")),
    number("export.keep", "EXPORT_KEEP", "7", (1, 10_000), "",
        "exports that stay when the name has {time} in it; older ones are removed"),

    optional("http://old-filetracker:9999", row("repair.fallback_url", "FALLBACK_URL", "", Kind::ServerUrl,
        "server with the Filetracker protocol, its prefix included, that `s3dedup repair` fetches damaged contents from")),
    optional("http://localhost:3900", row("repair.s3.endpoint", "FALLBACK_S3_ENDPOINT", "", Kind::Url,
        "address of an S3 server with a copy of the bucket, that `s3dedup repair` fetches damaged contents from")),
    optional("s3dedup-copy", row("repair.s3.bucket", "FALLBACK_S3_BUCKET", "", Kind::Name,
        "name of the bucket there; required with repair.s3.endpoint")),
    secret(optional("ACCESS-KEY", row("repair.s3.access_key", "FALLBACK_S3_ACCESS_KEY", "", Kind::Text,
        "access key; required with repair.s3.endpoint, here or by access_key_file; reading is enough"))),
    optional("/run/secrets/fallback_access_key", row("repair.s3.access_key_file", "FALLBACK_S3_ACCESS_KEY_FILE", "",
        Kind::Path, "file that holds the access key")),
    secret(optional("SECRET-KEY", row("repair.s3.secret_key", "FALLBACK_S3_SECRET_KEY", "", Kind::Text,
        "secret key; required with repair.s3.endpoint, here or by secret_key_file"))),
    optional("/run/secrets/fallback_secret_key", row("repair.s3.secret_key_file", "FALLBACK_S3_SECRET_KEY_FILE", "",
        Kind::Path, "file that holds the secret key")),
    row("repair.s3.region", "FALLBACK_S3_REGION", "us-east-1", Kind::Text, "region that requests are signed for"),
    row("repair.s3.force_path_style", "FALLBACK_S3_FORCE_PATH_STYLE", "true", Kind::Bool,
        "bucket in the path instead of the host name"),

    optional("http://old-filetracker:9999", row("migration.filetracker_url", "FILETRACKER_URL", "", Kind::ServerUrl,
        "old Filetracker server that files are migrated from, its prefix included")),
    optional("/srv/filetracker", row("migration.v1_directory", "FILETRACKER_V1_DIR", "", Kind::Path,
        "directory of an old Filetracker server of version 1, the one with `files` in it, that files are migrated from")),
    row("migration.mode", "MIGRATION", "off", Kind::Choice(&["off", "live", "proxy"]),
        "whether the old server is beside this one while clients use it: live copies its files in the background, proxy \
         only those that are asked for"),
    flag("--file-list", optional("/srv/names.txt", row("migration.file_list", "MIGRATION_FILE_LIST", "", Kind::Path,
        "file with the names, one a line, that are copied in the background instead of all"))),
    flag("--max-concurrency", number("migration.max_concurrency", "MIGRATION_MAX_CONCURRENCY", "10", (1, 1000), "",
        "files that a migration copies, and writes that the old server is told of, at once")),
];

/// The setting of that key.
pub fn setting(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn keys_and_variables_are_unique() {
        let keys: BTreeSet<_> = SETTINGS.iter().map(|setting| setting.key).collect();
        let variables: BTreeSet<_> = SETTINGS.iter().map(|setting| setting.env).collect();
        assert_eq!((keys.len(), variables.len()), (SETTINGS.len(), SETTINGS.len()));
    }

    #[test]
    fn every_setting_is_explained() {
        for setting in SETTINGS {
            assert!(!setting.help.is_empty() && !setting.allowed().is_empty(), "{}", setting.key);
            assert!(!setting.default_words().is_empty(), "{}", setting.key);
        }
    }
}
