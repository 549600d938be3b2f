//! From what is written to what is meant: every value in range, every name resolved, no two reports on one key.
//!
//! This file owns the rules of a valid configuration. It must not look at anything outside the configuration and the
//! variables it is given.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    ops::RangeInclusive,
    sync::Arc,
    time,
};

use jiff::{
    SignedDuration, Span, SpanRelativeTo,
    civil::{self, Weekday},
    tz::TimeZone,
};
use secrecy::ExposeSecret as _;
use url::{Host, Url};

use super::{
    Alarms, ArchiveSource, CampaignsQuery, Channel, Config, Destination, Events, Ledger, Limits, Listing, Mistakes,
    MonthDay, NamedFile, Network, Problem, Report, ReportId, Schedule, SecretSource, Shape, SnapshotSource, Source,
    SourceKind, StatsQuery, Target, Web, Workspace, address,
    key::key_part,
    oddities,
    place::{Place, alternatives, did_you_mean},
    raw,
    zones::Zones,
};
use crate::alarm_kind::AlarmKind;

type Env = BTreeMap<String, String>;

/// How the paths of the vendor's APIs begin, as its documents print them.
const ENDPOINTS: [&str; 3] = ["campaign_reports", "dailyCampaignReportDump", "core-services"];

/// File systems allow 255 bytes; this leaves room for what moesync adds to a name (date, hash, manifest).
const LONGEST_NAME: usize = 200;
/// With the longest name this still fits into 255 bytes.
const LONGEST_SUFFIX: usize = 16;

const SECOND: SignedDuration = SignedDuration::from_secs(1);
/// Where the clocks go forward.
const SHORTEST_DAY: SignedDuration = SignedDuration::from_hours(23);
const DAY: SignedDuration = SignedDuration::from_hours(24);
const YEAR: SignedDuration = SignedDuration::from_hours(366 * 24);
const PEBIBYTE: u64 = 1 << 50;

pub(super) fn config(raw: &raw::Config, root: &Place<'_>, env: &Env, zones: &Zones) -> Result<Config, Mistakes> {
    let mut mistakes = Mistakes::default();
    let network = mistakes.keep(network(&raw.network, &root.key("network"), env));
    // A mistake in another key of [network] leaves what that table permits as it is.
    let permission = Network { proxy: None, ca_file: None, allow_http: raw.network.allow_http };
    let for_others = network.as_ref().unwrap_or(&permission);
    let workspaces = each(&raw.workspaces, &root.key("workspaces"), |raw, at| {
        workspace(raw, at, for_others, env, zones).map(Arc::new)
    });
    let destinations = each(&raw.destinations, &root.key("destinations"), |raw, at| {
        destination(raw, at, for_others, env).map(Arc::new)
    });
    let (workspaces, destinations) = (mistakes.keep(workspaces), mistakes.keep(destinations));
    let names = unique(raw.workspaces.iter().map(|raw| raw.name.as_str()), &root.key("workspaces"));
    let workspaces = mistakes.keep(names).and(workspaces);
    let names = unique(raw.destinations.iter().map(|raw| raw.name.as_str()), &root.key("destinations"));
    let destinations = mistakes.keep(names).and(destinations);
    if raw.reports.is_empty() {
        mistakes.add(root.problem("there is nothing to keep; add at least one [[reports]] table"));
    }
    let reports = each(&raw.reports, &root.key("reports"), |raw, at| {
        report(raw, at, workspaces.as_deref(), destinations.as_deref(), for_others, zones)
    });
    let reports: Option<Vec<_>> = mistakes.keep(reports).and_then(|reports| reports.into_iter().collect());
    if let Some(reports) = &reports {
        mistakes.keep(apart(reports, &root.key("reports")));
    }
    let notify = mistakes.keep(each(&raw.notify, &root.key("notify"), |raw, at| target(raw, at, for_others, env)));
    mistakes.keep(unique(raw.notify.iter().map(|raw| raw.name.as_str()), &root.key("notify")));
    let ledger = mistakes.keep(ledger(&raw.ledger, &root.key("ledger"), env));
    let keep_attempts =
        mistakes.keep(duration(&raw.ledger.keep_attempts, DAY..=100 * YEAR, &root.key("ledger").key("keep_attempts")));
    let web = mistakes.keep(web(&raw.web, &root.key("web"), env));
    let limits = mistakes.keep(limits(&raw.limits, &root.key("limits")));
    let alarms = mistakes.keep(alarms(&raw.alarms, &root.key("alarms")));
    mistakes.finish(|| {
        Some(Config {
            ledger: ledger?,
            keep_attempts: keep_attempts?,
            web: web?,
            limits: limits?,
            alarms: alarms?,
            network: network?,
            workspaces: workspaces?,
            destinations: destinations?,
            reports: reports?,
            notify: notify?,
            tzdata: zones.name().to_owned(),
            warnings: oddities::all(raw, root, env),
        })
    })
}

/// Checks every element, and collects the mistakes of all.
fn each<R, T, E: Into<Mistakes>>(
    raw: &[R],
    at: &Place<'_>,
    mut check: impl FnMut(&R, &Place<'_>) -> Result<T, E>,
) -> Result<Vec<T>, Mistakes> {
    let mut mistakes = Mistakes::default();
    let checked: Vec<_> =
        raw.iter().enumerate().map(|(index, raw)| mistakes.keep(check(raw, &at.index(index)))).collect();
    mistakes.finish(|| checked.into_iter().collect())
}

fn unique<'n>(names: impl Iterator<Item = &'n str>, at: &Place<'_>) -> Result<(), Mistakes> {
    let mut mistakes = Mistakes::default();
    let mut seen = BTreeMap::new();
    for (index, name) in names.enumerate().filter(|(_, name)| !name.trim().is_empty()) {
        let here = at.index(index).key("name");
        if let Some(first) = seen.insert(name, here.clone()) {
            mistakes.add(here.problem(format_args!("{name:?} is taken already, at {}", first.locus())));
        }
    }
    mistakes.finish(|| Some(()))
}

fn ledger(raw: &raw::Ledger, at: &Place<'_>, env: &Env) -> Result<Ledger, Problem> {
    let at = at.key("url");
    // The URL may hold a password, so no message here shows it.
    if let Some(path) = raw.url.strip_prefix("sqlite:") {
        let path = expand(path.strip_prefix("//").unwrap_or(path), &at, env)?;
        if path.is_empty() || path.starts_with(":memory:") || path.contains('?') {
            return Err(at.problem("expected the path of a file after sqlite://, and nothing else"));
        }
        return Ok(Ledger::Sqlite(path.into()));
    }
    match Url::parse(&raw.url) {
        Ok(url) if matches!(url.scheme(), "postgres" | "postgresql") => Ok(Ledger::Postgres(raw.url.clone())),
        _ => Err(at.problem("expected sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE")),
    }
}

fn web(raw: &raw::Web, at: &Place<'_>, env: &Env) -> Result<Web, Mistakes> {
    let mut mistakes = Mistakes::default();
    let listen = mistakes.keep(listen(&raw.listen, &at.key("listen")));
    let token_file = mistakes.keep(file(raw.token_file.as_deref(), &at.key("token_file"), env));
    if let Some(address) = listen.flatten()
        && !address.ip().is_loopback()
        && raw.token_file.is_none()
    {
        mistakes.add(at.key("listen").problem(format_args!(
            "{address} can be reached by others, so it needs a token_file; or listen on a loopback address, such as \
             \"127.0.0.1:8787\""
        )));
    }
    let hosts = mistakes.keep(each(&raw.hosts, &at.key("hosts"), host_name));
    mistakes.finish(|| Some(Web { listen: listen?, token_file: token_file?, open: raw.open.clone(), hosts: hosts? }))
}

fn listen(text: &str, at: &Place<'_>) -> Result<Option<SocketAddr>, Problem> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        at.problem(format_args!(
            "expected an IP address and a port, such as \"127.0.0.1:8787\", or \"\" for none, found {text:?}"
        ))
    })
}

/// The name of a host, without a port, in lower case.
fn host_name(text: &String, at: &Place<'_>) -> Result<String, Problem> {
    match Host::parse(text) {
        Ok(Host::Domain(name)) => Ok(name),
        _ => Err(at.problem(format_args!(
            "expected a host name without a port, such as \"moesync.example.com\", found {text:?}"
        ))),
    }
}

fn limits(raw: &raw::Limits, at: &Place<'_>) -> Result<Limits, Mistakes> {
    let mut mistakes = Mistakes::default();
    let attempts = 1..=1024;
    let concurrency = integer(raw.concurrency, attempts.clone(), &at.key("concurrency"));
    let concurrency = mistakes.keep(concurrency);
    let per_workspace = integer(raw.concurrency_per_workspace, attempts.clone(), &at.key("concurrency_per_workspace"));
    let per_workspace = mistakes.keep(per_workspace);
    let per_destination = integer(raw.concurrency_per_destination, attempts, &at.key("concurrency_per_destination"));
    let per_destination = mistakes.keep(per_destination);
    let archive_bytes = mistakes.keep(bytes(&raw.archive_bytes, &at.key("archive_bytes")));
    let inflated_bytes = mistakes.keep(bytes(&raw.inflated_bytes, &at.key("inflated_bytes")));
    let inflate_ratio = mistakes.keep(integer(raw.inflate_ratio, 1..=1_000_000, &at.key("inflate_ratio")));
    let attempt_timeout = mistakes.keep(timeout(&raw.attempt_timeout, SECOND..=DAY, &at.key("attempt_timeout")));
    let connect_range = SignedDuration::from_millis(1)..=SignedDuration::from_mins(10);
    let connect_timeout = mistakes.keep(timeout(&raw.connect_timeout, connect_range, &at.key("connect_timeout")));
    let min_rate = mistakes.keep(rate(&raw.min_rate, &at.key("min_rate")));
    mistakes.finish(|| {
        Some(Limits {
            concurrency: concurrency?,
            concurrency_per_workspace: per_workspace?,
            concurrency_per_destination: per_destination?,
            archive_bytes: archive_bytes?,
            inflated_bytes: inflated_bytes?,
            inflate_ratio: inflate_ratio?,
            attempt_timeout: attempt_timeout?,
            connect_timeout: connect_timeout?,
            min_rate: min_rate?,
        })
    })
}

fn network(raw: &raw::Network, at: &Place<'_>, env: &Env) -> Result<Network, Mistakes> {
    let mut mistakes = Mistakes::default();
    // A proxy's URL may hold a password, so the message does not show it.
    let proxy = raw.proxy.as_deref().map(|text| {
        address::parse(text)
            .ok_or_else(|| at.key("proxy").problem("expected an address such as \"http://proxy.example:3128\""))
    });
    let proxy = mistakes.keep(proxy.transpose());
    let ca_file = mistakes.keep(file(raw.ca_file.as_deref(), &at.key("ca_file"), env));
    mistakes.finish(|| Some(Network { proxy: proxy?, ca_file: ca_file?, allow_http: raw.allow_http }))
}

fn alarms(raw: &raw::Alarms, at: &Place<'_>) -> Result<Alarms, Mistakes> {
    let mut mistakes = Mistakes::default();
    let range = SECOND..=YEAR;
    let expiry = mistakes.keep(each(&raw.expiry, &at.key("expiry"), |text, at| duration(text, range.clone(), at)));
    let late_after = mistakes.keep(duration(&raw.late_after, SignedDuration::ZERO..=YEAR, &at.key("late_after")));
    mistakes.finish(|| {
        let mut expiry = expiry?;
        expiry.sort_unstable_by(|a, b| b.cmp(a));
        expiry.dedup();
        Some(Alarms { late_after: late_after?, expiry })
    })
}

fn workspace(
    raw: &raw::Workspace,
    at: &Place<'_>,
    network: &Network,
    env: &Env,
    zones: &Zones,
) -> Result<Workspace, Mistakes> {
    let mut mistakes = Mistakes::default();
    let name = mistakes.keep(name(&raw.name, &at.key("name")));
    let app_id = mistakes.keep(app_id(&raw.app_id, &at.key("app_id")));
    let base_url = mistakes.keep(match (&raw.data_center, &raw.base_url) {
        (Some(data_center), None) => data_center_url(&data_center.0, &at.key("data_center")),
        (None, Some(url)) => base_url(url, &at.key("base_url"), network),
        (None, None) => Err(at.problem("data_center or base_url is missing; exactly one is required")),
        (Some(_), Some(_)) => {
            Err(at.key("base_url").problem("data_center is given too; exactly one of the two is required"))
        }
    });
    let secret =
        |prefix, file, env_name, value| secret(prefix, (file, env_name, value), raw.allow_world_readable, at, env);
    let secret_key =
        secret("secret_key", &raw.secret_key_file, &raw.secret_key_env, &raw.secret_key).and_then(|secret| {
            secret.ok_or_else(|| {
                at.problem("no secret key; give exactly one of secret_key_file, secret_key_env and secret_key")
            })
        });
    let secret_key = mistakes.keep(secret_key);
    let api_key = mistakes.keep(secret("api_key", &raw.api_key_file, &raw.api_key_env, &raw.api_key));
    let timezone = mistakes.keep(timezone(&raw.timezone, &at.key("timezone"), zones));
    mistakes.finish(|| {
        let secret_key = secret_key?;
        Some(Workspace {
            name: name?,
            app_id: app_id?,
            base_url: base_url?,
            timezone: timezone?,
            api_key: api_key?.unwrap_or_else(|| secret_key.clone()),
            secret_key,
        })
    })
}

fn app_id(text: &str, at: &Place<'_>) -> Result<String, Problem> {
    // A Basic user name ends at the first colon (RFC 7617).
    match text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control() || c == ':') {
        true => Err(at.problem("expected MoEngage's workspace id, without spaces or colons")),
        false => Ok(text.to_owned()),
    }
}

fn data_center_url(data_center: &str, at: &Place<'_>) -> Result<Url, Problem> {
    let url = raw::DATA_CENTERS
        .contains(&data_center)
        .then(|| Url::parse(&format!("https://api-{data_center}.moengage.com")).ok())
        .flatten();
    url.ok_or_else(|| {
        let padded = format!("{data_center:0>2}");
        let nearest = match raw::DATA_CENTERS.contains(&padded.as_str()) {
            true => format!("; did you mean {padded:?}?"),
            false => "; a data centre added later can be given as base_url".to_owned(),
        };
        at.problem(format_args!("expected {}, found {data_center:?}{nearest}", alternatives(raw::DATA_CENTERS)))
    })
}

/// The vendor's address, without a slash at the end of its path.
fn base_url(text: &str, at: &Place<'_>, network: &Network) -> Result<Url, Problem> {
    let mut url = address::parse(text)
        .ok_or_else(|| at.problem("expected an address such as \"https://api-01.moengage.com\""))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(at.problem("an address with a user or password in it; credentials have keys of their own"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(at.problem("an address ends before \"?\" and \"#\"; remove them and what follows"));
    }
    if !address::is_permitted(&url, network.allow_http) {
        return Err(at.problem(address::UNENCRYPTED));
    }
    let is_endpoint = |segment: &&str| ENDPOINTS.contains(segment);
    if let Some(endpoint) = url.path_segments().into_iter().flatten().find(is_endpoint) {
        return Err(at.problem(format_args!(
            "the address ends before \"/{endpoint}\": moesync adds the path of each API itself"
        )));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

fn timezone(text: &str, at: &Place<'_>, zones: &Zones) -> Result<TimeZone, Problem> {
    zones.get(text).ok_or_else(|| {
        if text.contains(|c: char| c.is_ascii_digit()) && text.contains(['+', '-', ':']) {
            return at.problem(format_args!(
                "{text:?} is an offset, which says nothing of clock changes; expected an IANA name such as \
                 \"Europe/Berlin\" or \"Asia/Kolkata\""
            ));
        }
        let names = zones.names();
        // "Berlin" is meant to be Europe/Berlin.
        let city = |name: &&String| name.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(text));
        let nearest = match names.iter().find(city) {
            Some(name) => format!("; did you mean {name:?}?"),
            None => did_you_mean(text, names.iter().map(String::as_str)),
        };
        let hint = if nearest.is_empty() { "; expected an IANA name such as \"Europe/Berlin\"" } else { "" };
        at.problem(format_args!("no zone is called {text:?}{nearest}{hint}"))
    })
}

fn secret(
    prefix: &str,
    (from_file, from_env, value): (&Option<String>, &Option<String>, &Option<raw::Secret>),
    allow_world_readable: bool,
    at: &Place<'_>,
    env: &Env,
) -> Result<Option<SecretSource>, Problem> {
    let keys = [format!("{prefix}_file"), format!("{prefix}_env"), prefix.to_owned()];
    let [file_key, env_key, value_key] = keys.each_ref().map(|key| at.key(key));
    let given = [from_file.is_some(), from_env.is_some(), value.is_some()];
    let given: Vec<_> = keys.iter().zip(given).filter(|(_, given)| *given).map(|(key, _)| key.as_str()).collect();
    if let [_, .., last] = given.as_slice() {
        return Err(at
            .key(last)
            .problem(format_args!("only one of {} may be given; remove the others", given.join(", "))));
    }
    if let Some(path) = from_file {
        return match expand(path, &file_key, env) {
            // Under systemd only the service has ${CREDENTIALS_DIRECTORY}; commands that need no key work without it.
            Err(Unexpanded::Unset(problem)) => Ok(Some(SecretSource::Unset(problem))),
            expanded => {
                let path = not_empty(expanded?, &file_key)?.into();
                let file = NamedFile { path, place: file_key.shown() };
                Ok(Some(SecretSource::File { file, allow_world_readable }))
            }
        };
    }
    if let Some(name) = from_env {
        // Not shown: it may be the secret itself, put here by mistake.
        let is_name = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_name(name) || name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(env_key.problem("expected the name of an environment variable: letters, digits and \"_\""));
        }
        return Ok(Some(SecretSource::Env { name: name.clone(), place: env_key.shown() }));
    }
    match value {
        Some(raw::Secret(secret)) if secret.expose_secret().trim().is_empty() => {
            Err(value_key.problem("must not be empty"))
        }
        Some(raw::Secret(secret)) => Ok(Some(SecretSource::Value(secret.clone()))),
        None => Ok(None),
    }
}

fn target(raw: &raw::Notify, at: &Place<'_>, network: &Network, env: &Env) -> Result<Target, Mistakes> {
    let mut mistakes = Mistakes::default();
    let name = mistakes.keep(name(&raw.name, &at.key("name")));
    let secret =
        |prefix, file, env_name, value| secret(prefix, (file, env_name, value), raw.allow_world_readable, at, env);
    let address = secret("url", &raw.url_file, &raw.url_env, &raw.url).and_then(|address| {
        address.ok_or_else(|| at.problem("no address; give exactly one of url_file, url_env and url"))
    });
    let address = mistakes.keep(address);
    if let (Some(raw::Secret(url)), true) = (&raw.url, address.is_some()) {
        let checked = super::target::address(url, network.allow_http);
        mistakes.keep(checked.map_err(|reason| at.key("url").problem(reason)));
    }
    let signed = mistakes.keep(secret("secret", &raw.secret_file, &raw.secret_env, &raw.secret));
    if let (Some(raw::Secret(secret)), Some(Some(_))) = (&raw.secret, &signed) {
        let checked = super::target::signing_key(secret);
        mistakes.keep(checked.map_err(|reason| at.key("secret").problem(reason)));
    }
    let channel = signed.and_then(|signed| mistakes.keep(channel(raw, signed, at)));
    mistakes
        .finish(|| Some(Target { name: name?, address: address?, allow_http: network.allow_http, channel: channel? }))
}

fn channel(raw: &raw::Notify, secret: Option<SecretSource>, at: &Place<'_>) -> Result<Channel, Problem> {
    let kind = match raw.kind {
        raw::NotifyKind::Webhook => "webhook",
        raw::NotifyKind::Slack => "slack",
        raw::NotifyKind::Ping => "ping",
    };
    let useless = |key: &str| Err(at.key(key).problem(format_args!("a target of kind {kind:?} has none; remove it")));
    let channel = match (raw.kind, secret) {
        (raw::NotifyKind::Webhook, None) => {
            return Err(at.problem("no secret; give exactly one of secret_file, secret_env and secret"));
        }
        (raw::NotifyKind::Slack | raw::NotifyKind::Ping, Some(_)) => {
            let given = [("secret_file", raw.secret_file.is_some()), ("secret_env", raw.secret_env.is_some())];
            return useless(given.iter().find(|(_, given)| *given).map_or("secret", |(key, _)| key));
        }
        (raw::NotifyKind::Webhook, Some(secret)) => {
            let all = Events { stored: true, summary: true, ..Events::alarms() };
            Channel::Webhook { secret, events: events(raw, at, all)? }
        }
        (raw::NotifyKind::Slack, None) => Channel::Slack { events: events(raw, at, Events::alarms())? },
        (raw::NotifyKind::Ping, None) => {
            let default = raw::Duration(raw::PING_EVERY.to_owned());
            let every = raw.every.as_ref().unwrap_or(&default);
            Channel::Ping { every: duration(every, SignedDuration::from_mins(1)..=DAY, &at.key("every"))? }
        }
    };
    match channel {
        Channel::Ping { .. } if raw.events.is_some() => useless("events"),
        Channel::Webhook { .. } | Channel::Slack { .. } if raw.every.is_some() => useless("every"),
        _ => Ok(channel),
    }
}

fn events(raw: &raw::Notify, at: &Place<'_>, default: Events) -> Result<Events, Problem> {
    let Some(words) = &raw.events else { return Ok(default) };
    if words.is_empty() {
        return Err(at.key("events").problem("must not be empty; leave it out for the default"));
    }
    let mut events = Events::default();
    for (index, raw::EventWord(word)) in words.iter().enumerate() {
        match (word.as_str(), AlarmKind::parse(word)) {
            ("alarms", _) => events.alarms.extend(Events::alarms().alarms),
            ("stored", _) => events.stored = true,
            ("summary", _) => events.summary = true,
            (_, Some(kind)) => events.alarms.extend([kind]),
            (_, None) => {
                let known = alternatives(raw::event_words());
                let nearest = did_you_mean(word, raw::event_words());
                let at = at.key("events").index(index);
                return Err(at.problem(format_args!("expected {known}, found {word:?}{nearest}")));
            }
        }
    }
    Ok(events)
}

fn destination(raw: &raw::Destination, at: &Place<'_>, network: &Network, env: &Env) -> Result<Destination, Mistakes> {
    let mut mistakes = Mistakes::default();
    let name = mistakes.keep(name(&raw.name, &at.key("name")));
    let url = mistakes.keep(destination_url(&raw.url, &at.key("url"), env));
    if let Some(url) = url.as_ref().filter(|url| raw.fsync.is_some() && url.scheme() != "file") {
        let only = format!("only a file:// destination has it, not {}://", url.scheme());
        mistakes.add(at.key("fsync").problem(only));
    }
    mistakes.finish(|| {
        Some(Destination {
            name: name?,
            url: url?,
            options: raw.options.iter().map(|(key, raw::Secret(value))| (key.clone(), value.clone())).collect(),
            fsync: raw.fsync.unwrap_or(true),
            ca_file: network.ca_file.clone(),
            place: at.shown(),
        })
    })
}

fn destination_url(text: &str, at: &Place<'_>, env: &Env) -> Result<Url, Problem> {
    let expected = || {
        at.problem(
            "expected file:///PATH, file://./PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX",
        )
    };
    let url = match text.strip_prefix("file://") {
        Some(path) => {
            let path = expand(path, at, env)?;
            if path.starts_with("./") || path.starts_with("../") {
                let here = std::path::absolute(".")
                    .map_err(|error| at.problem(format_args!("the working directory cannot be found: {error}")))?;
                Url::from_directory_path(here).ok().and_then(|here| here.join(&path).ok())
            } else if path.starts_with('/') {
                Url::parse(&format!("file://{path}")).ok()
            } else {
                return Err(at.problem("a path after file:// begins with \"/\", or with \"./\" when it is relative"));
            }
        }
        None => Url::parse(text).ok().filter(|url| matches!(url.scheme(), "s3" | "gs" | "az") && url.has_host()),
    };
    let url = url.ok_or_else(expected)?;
    if !url.username().is_empty() || url.password().is_some() || url.port().is_some() {
        return Err(at.problem("only a bucket and a prefix are expected here; credentials and endpoints are options"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(
            at.problem("a destination's URL ends before \"?\" and \"#\"; write them as %3F and %23 if they are meant")
        );
    }
    Ok(url)
}

/// A report; `None` if it is valid as far as that can be seen without the workspaces or destinations, which have mistakes.
fn report(
    raw: &raw::Report,
    at: &Place<'_>,
    workspaces: Option<&[Arc<Workspace>]>,
    destinations: Option<&[Arc<Destination>]>,
    network: &Network,
    zones: &Zones,
) -> Result<Option<Arc<Report>>, Mistakes> {
    let mut mistakes = Mistakes::default();
    let is_for_its_source = mistakes.keep(only_for_its_source(raw, at)).is_some();
    let workspace = workspaces.and_then(|workspaces| {
        mistakes.keep(named(workspaces, raw.workspace.as_deref(), |w| &w.name, &at.key("workspace")))
    });
    let destination = destinations.and_then(|destinations| {
        mistakes.keep(named(destinations, raw.destination.as_deref(), |d| &d.name, &at.key("destination")))
    });
    let name = mistakes.keep(match &raw.name {
        Some(given) => self::name(given, &at.key("name")),
        None if raw.source == SourceKind::CampaignReport => {
            Err(at.key("name").problem("missing, but required: the report's name in MoEngage's dashboard"))
        }
        None => Ok(raw.source.to_string()),
    });
    let id = match &raw.id {
        Some(given) => mistakes.keep(self::name(given, &at.key("id"))),
        None => name.clone(),
    };
    let timezone = raw.timezone.as_deref().map(|text| timezone(text, &at.key("timezone"), zones)).transpose();
    let timezone = mistakes.keep(timezone);
    let base_url = raw.base_url.as_deref().map(|text| base_url(text, &at.key("base_url"), network)).transpose();
    let base_url = mistakes.keep(base_url);
    let schedule = mistakes.keep(schedule(&raw.schedule, &at.key("schedule")));
    let buffer = mistakes.keep(duration(&raw.buffer, SignedDuration::ZERO..=DAY * 6, &at.key("buffer")));
    let comes_daily = matches!(schedule, Some(Schedule::Daily { .. } | Schedule::Once { .. }));
    if raw.source.is_live_listing() && comes_daily && buffer.is_some_and(|buffer| buffer >= SHORTEST_DAY) {
        mistakes.add(
            at.key("buffer")
                .problem("a live listing can only be read until the next one; a daily one needs less than 23 hours"),
        );
    }
    // A key of another source may be a mistake in `source`, whose own keys are then no further mistakes.
    let source = if is_for_its_source { mistakes.keep(source(raw, at)) } else { None };
    let start = raw.start.as_ref().map(|text| date(text, &["%Y-%m-%d"], &at.key("start"))).transpose();
    let start = mistakes.keep(start);
    let report = || {
        let workspace = workspace?;
        Some(Arc::new(Report {
            source: source?,
            id: ReportId::new(&workspace.name, &id?),
            name: name?,
            destination: destination?.clone(),
            schedule: schedule?,
            buffer: buffer?,
            start: start?,
            timezone: timezone?.unwrap_or_else(|| workspace.timezone.clone()),
            base_url: base_url?.unwrap_or_else(|| workspace.base_url.clone()),
            workspace: workspace.clone(),
        }))
    };
    mistakes.finish(|| Some(report()))
}

/// What `name` names; where there is only one, it need not be named.
fn named<'t, T>(
    all: &'t [T],
    name: Option<&str>,
    name_of: impl Fn(&T) -> &String,
    at: &Place<'_>,
) -> Result<&'t T, Problem> {
    let kind = at.last_key();
    let names = || all.iter().map(|one| name_of(one).as_str());
    match (name, all) {
        (_, []) => Err(at.problem(format_args!("there is no {kind}; add a [[{kind}s]] table"))),
        (None, [only]) => Ok(only),
        (None, _) => {
            Err(at.problem(format_args!("missing, but required where there are several: {}", alternatives(names()))))
        }
        (Some(name), _) => all.iter().find(|one| name_of(one) == name).ok_or_else(|| {
            let nearest = match did_you_mean(name, names()) {
                none if none.is_empty() => format!("; there is {}", alternatives(names())),
                nearest => nearest,
            };
            at.problem(format_args!("no {kind} is called {name:?}{nearest}"))
        }),
    }
}

/// Refuses keys that would do nothing for the report's source.
fn only_for_its_source(raw: &raw::Report, at: &Place<'_>) -> Result<(), Problem> {
    use SourceKind::{CampaignMeta, CampaignReport, CampaignStats, Campaigns, DailyDump, Executions};
    let rules: [(&str, bool, &[SourceKind]); 17] = [
        ("suffix", raw.suffix.is_some(), &[CampaignReport]),
        ("give_up_after", raw.give_up_after.is_some(), &[DailyDump]),
        ("metric_type", raw.metric_type.is_some(), &[CampaignStats]),
        ("attribution_type", raw.attribution_type.is_some(), &[CampaignStats]),
        ("campaign_ids", raw.campaign_ids.is_some(), &[CampaignStats, Executions]),
        ("window_days", raw.window_days.is_some(), &[CampaignStats]),
        ("refresh_days", raw.refresh_days.is_some(), &[CampaignStats]),
        ("shape", raw.shape.is_some(), &[CampaignStats]),
        ("api", raw.api.is_some(), &[Campaigns, CampaignMeta]),
        ("channels", raw.channels.is_some(), &[Campaigns, CampaignMeta]),
        ("created_by", raw.created_by.is_some(), &[Campaigns, CampaignMeta]),
        ("created_date", raw.created_date.is_some(), &[Campaigns, CampaignMeta]),
        ("delivery_type", raw.delivery_type.is_some(), &[Campaigns, CampaignMeta]),
        ("status", raw.status.is_some(), &[Campaigns, CampaignMeta]),
        ("tags", raw.tags.is_some(), &[Campaigns, CampaignMeta]),
        ("include_child_campaigns", raw.include_child_campaigns.is_some(), &[Campaigns, CampaignMeta]),
        ("include_archive_campaigns", raw.include_archive_campaigns.is_some(), &[Campaigns, CampaignMeta]),
    ];
    match rules.into_iter().find(|(_, given, sources)| *given && !sources.contains(&raw.source)) {
        None => Ok(()),
        Some((key, _, sources)) => Err(at.key(key).problem(format_args!(
            "only for the source {}; this report's is {:?}",
            alternatives(sources.iter().map(|source| source.as_str())),
            raw.source.as_str()
        ))),
    }
}

fn source(raw: &raw::Report, at: &Place<'_>) -> Result<Source, Mistakes> {
    let required = |key: &str| at.key(key).problem("missing, but required for the source \"campaign_stats\"");
    let list = |key: &str, list: &Option<Vec<String>>| words(list.as_deref().unwrap_or_default(), &at.key(key));
    let campaigns = |listing| {
        Ok::<_, Mistakes>(CampaignsQuery {
            listing,
            api: raw.api.unwrap_or_default(),
            channels: list("channels", &raw.channels)?,
            created_by: list("created_by", &raw.created_by)?,
            created_date: raw.created_date.as_ref().map(|raw| period(raw, &at.key("created_date"))).transpose()?,
            delivery_type: list("delivery_type", &raw.delivery_type)?,
            status: list("status", &raw.status)?,
            tags: list("tags", &raw.tags)?,
            include_child_campaigns: raw.include_child_campaigns,
            include_archive_campaigns: raw.include_archive_campaigns,
        })
    };
    Ok(match raw.source {
        SourceKind::CampaignReport => {
            let suffix = raw.suffix.clone().unwrap_or_else(|| raw::SUFFIX.to_owned());
            if suffix.len() > LONGEST_SUFFIX || suffix.contains(|c: char| c.is_control()) {
                let rule = format!("must have at most {LONGEST_SUFFIX} bytes and no control characters");
                return Err(at.key("suffix").problem(rule).into());
            }
            Source::Archive(ArchiveSource::CampaignReport { suffix })
        }
        SourceKind::DailyDump => {
            let text = raw.give_up_after.clone().unwrap_or_else(|| raw::Duration(raw::GIVE_UP_AFTER.to_owned()));
            let give_up_after = duration(&text, SECOND..=YEAR, &at.key("give_up_after"))?;
            Source::Archive(ArchiveSource::DailyDump { give_up_after })
        }
        SourceKind::CampaignStats => Source::Snapshot(SnapshotSource::CampaignStats(StatsQuery {
            metric_type: raw.metric_type.ok_or_else(|| required("metric_type"))?.as_str().to_owned(),
            attribution_type: raw.attribution_type.ok_or_else(|| required("attribution_type"))?.as_str().to_owned(),
            campaign_ids: list("campaign_ids", &raw.campaign_ids)?,
            window_days: integer(raw.window_days.unwrap_or(raw::WINDOW_DAYS), 1..=31, &at.key("window_days"))?,
            refresh_days: integer(raw.refresh_days.unwrap_or(raw::REFRESH_DAYS), 0..=366, &at.key("refresh_days"))?,
            shape: raw.shape.unwrap_or(Shape::Raw),
        })),
        SourceKind::Campaigns => Source::Snapshot(SnapshotSource::Campaigns(campaigns(Listing::Search)?)),
        SourceKind::CampaignMeta => Source::Snapshot(SnapshotSource::Campaigns(campaigns(Listing::Meta)?)),
        SourceKind::Executions => {
            Source::Snapshot(SnapshotSource::Executions { campaign_ids: list("campaign_ids", &raw.campaign_ids)? })
        }
    })
}

fn words(list: &[String], at: &Place<'_>) -> Result<Vec<String>, Mistakes> {
    each(list, at, |word, at| match word.trim().is_empty() || word.contains(|c: char| c.is_control()) {
        true => Err(at.problem("must not be empty or contain control characters")),
        false => Ok(word.clone()),
    })
}

fn period(raw: &raw::CreatedDate, at: &Place<'_>) -> Result<(civil::Date, civil::Date), Problem> {
    // The API itself writes these dates the other way round.
    let formats = ["%Y-%m-%d", "%d-%m-%Y"];
    let from = date(&raw.from_date, &formats, &at.key("from_date"))?;
    let to = date(&raw.to_date, &formats, &at.key("to_date"))?;
    match from <= to {
        true => Ok((from, to)),
        false => Err(at.key("to_date").problem(format_args!("{to} is before from_date, {from}"))),
    }
}

fn schedule(raw: &raw::Schedule, at: &Place<'_>) -> Result<Schedule, Mistakes> {
    let time = raw.at.as_ref().map(|text| self::time(text, &at.key("at"))).transpose()?;
    let every = match (raw.every, &raw.once) {
        (Some(every), None) => every,
        (None, Some(_)) if raw.on.is_some() => {
            return Err(at.key("on").problem("only with every = \"week\" or \"month\"").into());
        }
        (None, Some(text)) => {
            return Ok(Schedule::Once { date: date(text, &["%Y-%m-%d"], &at.key("once"))?, at: time });
        }
        (None, None) => return Err(at.problem("every or once is missing; exactly one is required").into()),
        (Some(_), Some(_)) => {
            return Err(at.problem("every and once are both given; exactly one is required").into());
        }
    };
    let time = time.ok_or_else(|| at.key("at").problem("missing, but required with every"))?;
    let on = at.key("on");
    Ok(match (every, &raw.on) {
        (raw::Every::Day, None) => Schedule::Daily { at: time },
        (raw::Every::Day, Some(_)) => return Err(on.problem("only with every = \"week\" or \"month\"").into()),
        (raw::Every::Week, None) => {
            return Err(on.problem("missing, but required with every = \"week\", such as on = \"monday\"").into());
        }
        (raw::Every::Week, Some(days)) => Schedule::Weekly { on: weekdays(days, &on)?, at: time },
        (raw::Every::Month, None) => {
            return Err(on
                .problem("missing, but required with every = \"month\", such as on = 1 or on = \"last\"")
                .into());
        }
        (raw::Every::Month, Some(raw::On::Day(day))) => Schedule::Monthly { on: month_day(day, &on)?, at: time },
        (raw::Every::Month, Some(raw::On::Days(_))) => {
            return Err(on.problem("expected one day; with every = \"week\" it may be a list").into());
        }
    })
}

/// The days in the order of the week, each once.
fn weekdays(raw: &raw::On, at: &Place<'_>) -> Result<Vec<Weekday>, Mistakes> {
    let list = match raw {
        raw::On::Day(day) => return Ok(vec![weekday(day, at)?]),
        raw::On::Days(list) if list.is_empty() => return Err(at.problem("must name at least one day").into()),
        raw::On::Days(list) => list,
    };
    let mut named = BTreeSet::new();
    let days = each(list, at, |name, at| {
        let day = weekday(name, at)?;
        match named.insert(day.to_monday_one_offset()) {
            true => Ok(day),
            false => Err(at.problem(format_args!("{name:?} is in the list already"))),
        }
    });
    days.map(|mut days| {
        days.sort_by_key(|day| day.to_monday_one_offset());
        days
    })
}

fn weekday(text: &str, at: &Place<'_>) -> Result<Weekday, Problem> {
    const DAYS: [(&str, Weekday); 7] = [
        ("monday", Weekday::Monday),
        ("tuesday", Weekday::Tuesday),
        ("wednesday", Weekday::Wednesday),
        ("thursday", Weekday::Thursday),
        ("friday", Weekday::Friday),
        ("saturday", Weekday::Saturday),
        ("sunday", Weekday::Sunday),
    ];
    DAYS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, day)| *day).ok_or_else(|| {
        let nearest = did_you_mean(text, DAYS.iter().map(|(name, _)| *name));
        at.problem(format_args!("expected a day of the week such as \"monday\", found {text:?}{nearest}"))
    })
}

fn month_day(text: &str, at: &Place<'_>) -> Result<MonthDay, Problem> {
    match (text, text.parse()) {
        ("last", _) => Ok(MonthDay::Last),
        (_, Ok(day @ 1..=31)) => Ok(MonthDay::Day(day)),
        _ => Err(at.problem(format_args!("expected a day of the month from 1 to 31, or \"last\", found {text:?}"))),
    }
}

/// Two reports in one folder would take each other's objects for their own. Case is ignored, as some file systems do.
fn apart(reports: &[Arc<Report>], at: &Place<'_>) -> Result<(), Mistakes> {
    let mut mistakes = Mistakes::default();
    let mut ids = BTreeMap::new();
    let mut folders = BTreeMap::new();
    for (index, report) in reports.iter().enumerate() {
        let at = at.index(index);
        let (workspace, id) = (report.id.workspace(), report.id.name());
        if let Some(first) = ids.insert(&report.id, at.clone()) {
            mistakes.add(at.problem(format_args!(
                "the workspace {workspace:?} has a report with the id {id:?} already, at {}; give one of them another id",
                first.locus()
            )));
            continue;
        }
        let url = report.destination.url.as_str().trim_end_matches('/');
        let key = format!("{}/{}", key_part(workspace), key_part(id));
        if let Some((first, other)) = folders.insert((url, key.to_lowercase()), (at.clone(), report)) {
            mistakes.add(at.problem(format_args!(
                "the objects of {workspace:?}, {id:?} would go to {key}, as those of {:?}, {:?} at {} do; give one of \
                 them another id",
                other.id.workspace(),
                other.id.name(),
                first.locus()
            )));
        }
    }
    mistakes.finish(|| Some(()))
}

/// A name that can be part of a key and of a line of text.
fn name(text: &str, at: &Place<'_>) -> Result<String, Problem> {
    if text.trim().is_empty() {
        return Err(at.problem("must not be empty"));
    }
    if text.contains(|c: char| c.is_control()) {
        return Err(at.problem(format_args!("must not contain control characters, found {text:?}")));
    }
    if text.len() > LONGEST_NAME {
        return Err(at.problem(format_args!("must have at most {LONGEST_NAME} bytes, has {}", text.len())));
    }
    Ok(text.to_owned())
}

fn file(path: Option<&str>, at: &Place<'_>, env: &Env) -> Result<Option<NamedFile>, Problem> {
    let Some(path) = path else { return Ok(None) };
    Ok(Some(NamedFile { path: not_empty(expand(path, at, env)?, at)?.into(), place: at.shown() }))
}

fn not_empty(path: String, at: &Place<'_>) -> Result<String, Problem> {
    match path.is_empty() {
        true => Err(at.problem("expected the path of a file, found nothing")),
        false => Ok(path),
    }
}

/// Why a path with `${VAR}` in it leads nowhere.
enum Unexpanded {
    /// The variable is not set; somewhere else it may be.
    Unset(Problem),
    /// It could not be, anywhere.
    Malformed(Problem),
}

impl From<Unexpanded> for Problem {
    fn from(unexpanded: Unexpanded) -> Self {
        match unexpanded {
            Unexpanded::Unset(problem) | Unexpanded::Malformed(problem) => problem,
        }
    }
}

/// Puts the values of environment variables in the place of each `${VAR}`.
fn expand(path: &str, at: &Place<'_>, env: &Env) -> Result<String, Unexpanded> {
    let unset = |name| at.problem(format_args!("the environment variable {name:?} in this path is not set"));
    let mut expanded = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) =
            after.split_once('}').ok_or_else(|| Unexpanded::Malformed(at.problem("a \"${\" has no closing \"}\"")))?;
        let value = env.get(name).ok_or_else(|| Unexpanded::Unset(unset(name)))?;
        expanded.push_str(before);
        expanded.push_str(value);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn integer<T: TryFrom<i64>>(value: i64, range: RangeInclusive<i64>, at: &Place<'_>) -> Result<T, Problem> {
    Some(value)
        .filter(|value| range.contains(value))
        .and_then(|value| T::try_from(value).ok())
        .ok_or_else(|| at.problem(format_args!("must be from {} to {}, found {value}", range.start(), range.end())))
}

fn duration(
    raw::Duration(text): &raw::Duration,
    range: RangeInclusive<SignedDuration>,
    at: &Place<'_>,
) -> Result<SignedDuration, Problem> {
    let span: Option<Span> = text.parse().ok();
    // A month has no fixed length, so this refuses months and years.
    let duration =
        span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()).ok_or_else(|| {
            at.problem(format_args!(
                "expected a duration such as \"30m\", \"1h30m\" or \"7d\" (w, d, h, m, s), found {text:?}"
            ))
        })?;
    match range.contains(&duration) {
        true => Ok(duration),
        false => Err(at.problem(format_args!(
            "must be from {} to {}, found {text:?}",
            Days(*range.start()),
            Days(*range.end())
        ))),
    }
}

/// A duration as one would write it in the configuration.
struct Days(SignedDuration);

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            seconds if seconds > 0 && seconds % DAY.as_secs() == 0 => write!(f, "{}d", seconds / DAY.as_secs()),
            _ => write!(f, "{:#}", self.0),
        }
    }
}

fn timeout(
    text: &raw::Duration,
    range: RangeInclusive<SignedDuration>,
    at: &Place<'_>,
) -> Result<time::Duration, Problem> {
    duration(text, range, at).map(SignedDuration::unsigned_abs)
}

fn bytes(raw::ByteSize(text): &raw::ByteSize, at: &Place<'_>) -> Result<u64, Problem> {
    let size: bytesize::ByteSize = text.parse().map_err(|_| {
        at.problem(format_args!("expected a size such as \"20 GiB\", \"500 MB\" or a number of bytes, found {text:?}"))
    })?;
    match size.as_u64() {
        bytes @ 1..=PEBIBYTE => Ok(bytes),
        _ => Err(at.problem(format_args!("must be from 1 B to 1 PiB, found {text:?}"))),
    }
}

fn rate(raw::Rate(text): &raw::Rate, at: &Place<'_>) -> Result<u64, Problem> {
    let size: Option<bytesize::ByteSize> = text.strip_suffix("/s").and_then(|size| size.trim_end().parse().ok());
    match size.map(|size| size.as_u64()) {
        Some(bytes @ 1..=PEBIBYTE) => Ok(bytes),
        Some(_) => Err(at.problem(format_args!("must be from 1 B/s to 1 PiB/s, found {text:?}"))),
        None => Err(at.problem(format_args!("expected a rate such as \"1 KiB/s\", found {text:?}"))),
    }
}

fn date(raw::Date(text): &raw::Date, formats: &[&str], at: &Place<'_>) -> Result<civil::Date, Problem> {
    formats
        .iter()
        .find_map(|format| civil::Date::strptime(format, text).ok())
        .ok_or_else(|| at.problem(format_args!("expected a date such as \"2026-11-21\", found {text:?}")))
}

fn time(raw::Time(text): &raw::Time, at: &Place<'_>) -> Result<civil::Time, Problem> {
    ["%H:%M", "%H:%M:%S"]
        .iter()
        .find_map(|format| civil::Time::strptime(format, text).ok())
        .ok_or_else(|| at.problem(format_args!("expected a time such as \"09:30\", found {text:?}")))
}
