//! Reads the compose files, and checks that what they name is there.

use std::collections::BTreeSet;
use std::fs;

use yaml_rust2::{Yaml, YamlLoader};

use crate::{path, read};

/// The image that the repository builds.
pub const OURS: &str = "s3dedup";

/// One compose file.
pub struct Compose {
    pub name: String,
    pub services: Vec<Service>,
    includes: Vec<String>,
    volumes: BTreeSet<String>,
    secrets: Vec<(String, String)>,
}

/// One service, with what it merges in.
pub struct Service {
    pub name: String,
    pub image: String,
    pub environment: Vec<(String, String)>,
    pub env_files: Vec<String>,
    fields: Yaml,
}

/// All compose files: those among the YAML files that have services.
pub fn all() -> Vec<Compose> {
    let names = fs::read_dir(path("compose")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(".yml")).collect();
    names.sort();
    let found: Vec<_> = names.iter().filter_map(|name| Compose::read(name)).collect();
    assert!(found.len() >= 5, "{names:?}");
    found
}

impl Compose {
    fn read(name: &str) -> Option<Self> {
        let file = YamlLoader::load_from_str(&read(&format!("compose/{name}"))).unwrap().remove(0);
        let services = file["services"].as_hash()?;
        let services = services.iter().map(|(name, fields)| Service::new(text(name), merged(fields))).collect();
        let secrets = pairs(&file["secrets"]).into_iter().map(|(name, fields)| (name, text(&fields["file"]))).collect();
        Some(Self {
            name: name.to_owned(),
            services,
            includes: texts(&file["include"]),
            volumes: pairs(&file["volumes"]).into_iter().map(|(name, _)| name).collect(),
            secrets,
        })
    }

    /// This file and those that it includes.
    fn with_included(&self) -> Vec<Self> {
        let names = std::iter::once(&self.name).chain(&self.includes);
        names.map(|name| Self::read(name).unwrap_or_else(|| panic!("{name} has no services"))).collect()
    }
}

impl Service {
    fn new(name: String, fields: Yaml) -> Self {
        let environment = pairs(&merged(&fields["environment"]));
        Self {
            name,
            image: text(&fields["image"]),
            environment: environment.into_iter().map(|(name, value)| (name, text(&value))).collect(),
            env_files: texts(&fields["env_file"]),
            fields,
        }
    }
}

/// A mapping with what `<<` names in it.
fn merged(fields: &Yaml) -> Yaml {
    let Some(own) = fields.as_hash() else { return fields.clone() };
    let merge = Yaml::String("<<".into());
    let mut all = own.get(&merge).map(merged).and_then(Yaml::into_hash).unwrap_or_default();
    for (key, value) in own.iter().filter(|(key, _)| **key != merge) {
        all.insert(key.clone(), value.clone());
    }
    Yaml::Hash(all)
}

fn pairs(mapping: &Yaml) -> Vec<(String, Yaml)> {
    mapping.as_hash().into_iter().flatten().map(|(key, value)| (text(key), value.clone())).collect()
}

/// The texts of a list, or the keys of a mapping.
fn texts(list: &Yaml) -> Vec<String> {
    let keys = pairs(list).into_iter().map(|(key, _)| key);
    keys.chain(list.as_vec().into_iter().flatten().map(text)).collect()
}

fn text(value: &Yaml) -> String {
    match value {
        Yaml::Integer(number) => number.to_string(),
        Yaml::BadValue | Yaml::Null => String::new(),
        other => other.as_str().unwrap_or_else(|| panic!("no text: {other:?}")).to_owned(),
    }
}

/// `${NAME:-default}` and `${NAME:?complaint}`: the text with defaults put in, and the names without one.
fn resolved(text: &str) -> (String, Vec<String>) {
    let mut parts = text.split("${");
    let (mut plain, mut required) = (parts.next().unwrap_or("").to_owned(), Vec::new());
    for part in parts {
        let (inside, after) = part.split_once('}').expect("an end of ${");
        match inside.split_once(":-") {
            Some((_, default)) => plain.push_str(default),
            None => required.push(inside.split_once(":?").expect("a complaint when it is not set").0.to_owned()),
        }
        plain.push_str(after);
    }
    (plain, required)
}

#[test]
fn the_files_that_compose_files_name_are_there() {
    for file in all() {
        for service in &file.services {
            let mounts = texts(&service.fields["volumes"]);
            for mount in mounts.iter().map(|mount| resolved(mount).0) {
                let source = mount.split(':').next().unwrap();
                let is_there = match source.strip_prefix("./") {
                    Some(name) => path(&format!("compose/{name}")).is_file(),
                    None => file.volumes.contains(source),
                };
                assert!(is_there, "{}, {}: {source}", file.name, service.name);
            }
            for name in &service.env_files {
                assert!(path(&format!("compose/{name}")).is_file(), "{}: {name}", file.name);
            }
            if service.image == OURS {
                assert_eq!(text(&service.fields["build"]["context"]), "..", "{}", file.name);
            }
        }
    }
}

#[test]
fn what_services_wait_for_is_there_and_tells_its_health() {
    for file in all() {
        let files = file.with_included();
        let services: Vec<_> = files.iter().flat_map(|file| &file.services).collect();
        let secrets: Vec<_> = files.iter().flat_map(|file| &file.secrets).map(|(name, _)| name).collect();
        for service in &file.services {
            for (name, how) in pairs(&service.fields["depends_on"]) {
                let other = services.iter().find(|other| other.name == name);
                let other = other.unwrap_or_else(|| panic!("{}: {} waits for {name}", file.name, service.name));
                // our image brings its health check along
                let tells = other.image == OURS || !other.fields["healthcheck"].is_badvalue();
                assert!(text(&how["condition"]) != "service_healthy" || tells, "{}: {name}", file.name);
            }
            for name in texts(&service.fields["secrets"]) {
                assert!(secrets.contains(&&name), "{}: secret {name}", file.name);
            }
        }
    }
}

#[test]
fn what_is_asked_of_the_environment_and_every_secret_is_made_by_the_script() {
    let script = read("compose/make-env.sh");
    for file in all() {
        let lines = read(&format!("compose/{}", file.name));
        let lines: Vec<_> = lines.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
        for name in resolved(&lines.join("\n")).1 {
            assert!(script.lines().any(|line| line.starts_with(&format!("{name}="))), "{}: {name}", file.name);
        }
        for (_, source) in &file.secrets {
            let name = source.strip_prefix("./").expect("a file beside it");
            assert!(script.contains(&format!(">{name}\n")), "{}: {name}", file.name);
        }
    }
}

#[test]
fn our_containers_can_write_to_their_volume_only_and_get_time_to_drain() {
    for file in all() {
        for service in file.services.iter().filter(|service| service.image == OURS) {
            let fields = &service.fields;
            assert_eq!(fields["read_only"].as_bool(), Some(true), "{}", service.name);
            assert_eq!(texts(&fields["cap_drop"]), ["ALL"], "{}", service.name);
            assert_eq!(texts(&fields["security_opt"]), ["no-new-privileges:true"], "{}", service.name);
            let grace = text(&fields["stop_grace_period"]);
            let grace: u64 = grace.trim_end_matches('s').parse().unwrap_or_else(|_| panic!("{grace:?}"));
            let drain = s3dedup::config::table::setting("limits.drain_seconds").unwrap().default_words();
            assert!(grace > drain.parse().unwrap(), "{}: {grace} s", service.name);
        }
    }
}

#[test]
fn balancer_and_monitoring_ask_the_instances_that_there_are() {
    let instances = |name: &str| -> BTreeSet<String> {
        let services = Compose::read(name).unwrap().services;
        services.into_iter().filter(|service| service.image == OURS).map(|service| service.name).collect()
    };
    let targets = |name: &str| -> BTreeSet<String> {
        let file = YamlLoader::load_from_str(&read(&format!("compose/{name}"))).unwrap().remove(0);
        let named = texts(&file[0]["targets"]);
        named.iter().map(|target| target.strip_suffix(":8080").expect("our port").to_owned()).collect()
    };
    let balanced = read("compose/haproxy.cfg");
    let balanced = balanced.lines().filter_map(|line| line.trim().strip_prefix("server ")?.split(' ').next());
    assert_eq!(balanced.map(str::to_owned).collect::<BTreeSet<_>>(), instances("ha.yml"));
    assert_eq!(targets("targets-ha.yml"), instances("ha.yml"));
    assert_eq!(targets("targets.yml"), instances("single.yml"));
    assert_eq!(targets("targets.yml"), instances("s3.yml"));
}

#[test]
fn the_instances_believe_their_balancer_and_nobody_else() {
    let file = Compose::read("ha.yml").unwrap();
    let balancer = file.services.iter().find(|service| service.name == "balancer").unwrap();
    let address = text(&balancer.fields["networks"]["balanced"]["ipv4_address"]);
    for instance in file.services.iter().filter(|service| service.image == OURS) {
        let trusted = instance.environment.iter().find(|(name, _)| name == "TRUSTED_PROXIES");
        assert_eq!(trusted.map(|(_, value)| value), Some(&address), "{}", instance.name);
        assert!(texts(&instance.fields["networks"]).contains(&"balanced".to_owned()), "{}", instance.name);
    }
    assert!(address.parse::<std::net::Ipv4Addr>().is_ok(), "{address}");
}
