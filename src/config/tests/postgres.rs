//! PostgreSQL, locks and names of instances.

use super::*;

fn postgres() -> Case {
    Case::default().env("KVSTORAGE_TYPE", "postgres").env("POSTGRES_HOST", "db1").env("POSTGRES_PORT", "6000")
}

#[test]
fn the_lock_session_goes_where_the_others_go_unless_told() {
    let config = postgres().env("LOCKS_TYPE", "postgres").load().unwrap().config;
    assert_eq!((config.kvstorage_type, config.locks_type), (MetadataType::Postgres, LocksType::Postgres));
    assert_eq!((config.postgres.lock_host.as_str(), config.postgres.lock_port), ("db1", 6000));
    let loaded = postgres().env("POSTGRES_LOCK_PORT", "5432").load().unwrap();
    assert_eq!((loaded.config.postgres.lock_host.as_str(), loaded.config.postgres.lock_port), ("db1", 5432));
    assert_eq!(loaded.to_json()["postgres.lock_host"]["source"], "default, as postgres.host");
}

#[test]
fn defaults_of_postgres() {
    let postgres = Case::default().env("KVSTORAGE_TYPE", "postgres").load().unwrap().config.postgres;
    assert_eq!((postgres.host.as_str(), postgres.port, postgres.pool_size), ("localhost", 5432, 10));
    assert_eq!((postgres.user.as_str(), postgres.dbname.as_str()), ("postgres", "s3dedup"));
    assert_eq!((postgres.sslmode, postgres.sslrootcert, postgres.password), (SslMode::Prefer, None, None));
    let full = Case::default().env("POSTGRES_SSLMODE", "verify-full").load().unwrap().config.postgres;
    assert_eq!(full.sslmode, SslMode::VerifyFull);
}

#[test]
fn values_of_postgres_are_checked_even_with_sqlite() {
    for (name, value) in [
        ("POSTGRES_PORT", "0"),
        ("POSTGRES_MAX_CONNECTIONS", "0"),
        ("POSTGRES_SSLMODE", "verify-ca"),
        ("POSTGRES_CONNECT_TIMEOUT", "61"),
        ("POSTGRES_STATEMENT_TIMEOUT", "99"),
        ("LOCKS_HELD_MAX", "1"),
        ("KVSTORAGE_TYPE", "mysql"),
        ("LOCKS_TYPE", "redis"),
    ] {
        assert_names(&Case::default().env(name, value).error(), &[name]);
    }
}

#[test]
fn a_password_comes_from_a_file_or_not_at_all_and_is_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    std::fs::write(&path, format!("{SECRET}\n")).unwrap();
    let loaded = postgres().env("POSTGRES_PASSWORD_FILE", path.to_str().unwrap()).load().unwrap();
    assert_eq!(loaded.config.postgres.password.as_ref().unwrap().reveal(), SECRET);
    for text in [loaded.to_table(), loaded.to_json().to_string(), format!("{:?}", loaded.config)] {
        assert!(!text.contains(SECRET), "{text}");
    }
    let both = postgres().env("POSTGRES_PASSWORD", SECRET).env("POSTGRES_PASSWORD_FILE", path.to_str().unwrap());
    assert_names(&both.error(), &["postgres.password_file", "postgres.password", "one of the two"]);
    assert_names(&postgres().env("POSTGRES_PASSWORD_FILE", "/nowhere").error(), &["POSTGRES_PASSWORD_FILE"]);
    postgres().env("POSTGRES_PASSWORD", &format!("{SECRET} ")).error();
}

#[test]
fn locks_in_postgres_need_metadata_in_postgres() {
    let error = Case::default().env("LOCKS_TYPE", "postgres").error();
    assert_names(&error, &["locks_type", "LOCKS_TYPE", "set KVSTORAGE_TYPE=postgres"]);
}

#[test]
fn the_lock_session_must_go_past_a_pooling_proxy() {
    let pooled = || postgres().env("POSTGRES_TRANSACTION_POOLING", "true");
    let error = pooled().env("LOCKS_TYPE", "postgres").error();
    assert_names(&error, &["postgres.transaction_pooling", "POSTGRES_LOCK_HOST", "POSTGRES_LOCK_PORT"]);
    pooled().load().map(|_| ()).unwrap();
    for (name, value) in [("POSTGRES_LOCK_HOST", "db1"), ("POSTGRES_LOCK_PORT", "5432")] {
        pooled().env("LOCKS_TYPE", "postgres").env(name, value).load().map(|_| ()).unwrap();
    }
}

#[test]
fn an_instance_is_called_after_host_and_port() {
    let config = Case::default().env("LISTEN_PORT", "81").load().unwrap().config;
    let id = config.instance_id(81);
    assert!(id.ends_with(":81") && id.len() > 3, "{id}");
    let config = Case::default().env("LISTEN_PORT", "0").load().unwrap().config;
    assert!(config.instance_id(4242).ends_with(":4242"));
    let case =
        Case::default().env("INSTANCE_ID", "left").env("INSTANCE_ADDRESS", "10.0.0.1:80").env("LISTEN_PORT", "0");
    let config = case.load().unwrap().config;
    assert_eq!((config.instance_id(1), config.instance_address(1)), ("left".into(), "10.0.0.1:80".into()));
}
