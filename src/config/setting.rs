//! What a setting is: one row of the table in [`super::table`].

/// One setting. Loader, `check-config`, `--help` and the documentation are all made from it.
#[derive(Debug)]
pub struct Setting {
    /// Path in the configuration file, for example `bucket.port`.
    pub key: &'static str,
    /// Name of the environment variable.
    pub env: &'static str,
    /// Command line flag, for example `--listen-port`.
    pub flag: Option<&'static str>,
    /// What holds when nobody sets it.
    pub default: Fallback,
    /// Which values are allowed.
    pub kind: Kind,
    /// Unit of a number, and what a special number means; empty when there is nothing to say.
    pub unit: &'static str,
    /// Whether the value must never be shown.
    pub secret: bool,
    /// One line for people.
    pub help: &'static str,
}

/// What holds for a setting that nobody set.
#[derive(Clone, Copy, Debug)]
pub enum Fallback {
    /// This value, written as in the environment.
    Fixed(&'static str),
    /// A value that follows from other settings.
    Derived {
        /// The rule, for people.
        rule: &'static str,
        /// A value that could stand in a sample file.
        example: &'static str,
    },
    /// Nothing.
    Unset {
        /// A value that could stand in a sample file.
        example: &'static str,
    },
}

/// Which values a setting accepts.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number within bounds.
    Integer {
        /// The smallest allowed number.
        min: u64,
        /// The largest allowed number.
        max: u64,
    },
    /// One word of a list.
    Choice(&'static [&'static str]),
    /// Any text in one line.
    Text,
    /// A bucket name.
    Name,
    /// A path in the local file system.
    Path,
    /// The address of a server, without a path.
    Url,
    /// The address of a server, perhaps with a path and with a user and password in it, which are never shown.
    ServerUrl,
    /// A host name or an IP address.
    Host,
    /// A cron expression of five fields.
    Cron,
    /// An address and a port to listen on.
    Listen,
    /// A list of networks and addresses.
    Networks,
    /// The path in front of the Filetracker endpoints; the empty text is a value.
    Prefix,
}

impl Setting {
    /// The allowed values in words.
    pub fn allowed(&self) -> String {
        let words = match self.kind {
            Kind::Bool => "true or false".to_owned(),
            Kind::Integer { min, max } => format!("an integer from {min} to {max}"),
            Kind::Choice(words) => words.join(", "),
            Kind::Text => "text without control characters or white space at its ends".to_owned(),
            Kind::Name => "1 to 255 letters, digits, '.', '_' or '-', first a letter or digit".to_owned(),
            Kind::Path => "a path".to_owned(),
            Kind::Url => "http:// or https://, a host and an optional port, nothing else".to_owned(),
            Kind::ServerUrl => "http:// or https://, a host, an optional port and path".to_owned(),
            Kind::Host => "a host name or an IP address".to_owned(),
            Kind::Listen => "a host name or an IP address, a colon and a port: 127.0.0.1:9090, [::1]:9090".to_owned(),
            Kind::Networks => "IP addresses and networks with commas between them: 10.0.0.0/8, 2001:db8::7".to_owned(),
            Kind::Cron => {
                "minute, hour, day of month, month, day of week, as in cron; times in UTC: 30 3 * * SUN".to_owned()
            }
            Kind::Prefix => {
                "a path of letters, digits, '.', '_', '~' and '-' such as /ft; empty or / for the root".to_owned()
            }
        };
        if self.unit.is_empty() { words } else { format!("{words} ({})", self.unit) }
    }

    /// The default in words.
    pub fn default_words(&self) -> &'static str {
        match self.default {
            Fallback::Fixed(value) => value,
            Fallback::Derived { rule, .. } => rule,
            Fallback::Unset { .. } => "unset",
        }
    }

    /// The section of the file the key is in, and its name there.
    pub fn section_and_name(&self) -> (&'static str, &'static str) {
        self.key.rsplit_once('.').unwrap_or(("", self.key))
    }
}
