//! The HTTP client of object stores: that of object_store's options, without redirects.
//!
//! This file owns what object_store's own client leaves open: it follows redirects, with tokens among its headers, and what
//! their targets answer counts as the bucket's. It must not know what is requested.

use std::{str::FromStr, sync::Arc, time::Duration};

use object_store::{
    ClientConfigKey::{self, *},
    ClientOptions, Error, Result,
    client::{HttpClient, HttpConnector},
};
use rand::seq::SliceRandom as _;
use reqwest::{
    Certificate, ClientBuilder, NoProxy, Proxy,
    dns::{Addrs, Name, Resolve, Resolving},
};

use crate::http;

type SetDuration = fn(ClientBuilder, Duration) -> ClientBuilder;
type SwitchOn = fn(ClientBuilder) -> ClientBuilder;

/// The options that are durations.
const DURATIONS: [(ClientConfigKey, SetDuration); 6] = [
    (Timeout, |client, limit| client.timeout(limit)),
    (ConnectTimeout, |client, limit| client.connect_timeout(limit)),
    (ReadTimeout, |client, limit| client.read_timeout(limit)),
    (PoolIdleTimeout, |client, limit| client.pool_idle_timeout(limit)),
    (Http2KeepAliveInterval, |client, interval| client.http2_keep_alive_interval(interval)),
    (Http2KeepAliveTimeout, |client, limit| client.http2_keep_alive_timeout(limit)),
];

/// The options that are on or off, and off by reqwest's default.
const SWITCHES: [(ClientConfigKey, SwitchOn); 5] = [
    (AllowInvalidCertificates, |client| client.danger_accept_invalid_certs(true)),
    (Http2KeepAliveWhileIdle, |client| client.http2_keep_alive_while_idle(true)),
    (Http1Only, ClientBuilder::http1_only),
    (Http2Only, ClientBuilder::http2_prior_knowledge),
    (RandomizeAddresses, |client| client.dns_resolver(Arc::new(Shuffled))),
];

/// Makes clients that trust `authorities` as well.
#[derive(Debug, Clone, Default)]
pub(super) struct Connector {
    pub(super) authorities: Vec<Certificate>,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient> {
        let options = Options(options);
        let mut builder = http::without_redirects()
            // A decoded body does not have the size of the object.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .https_only(!options.is(AllowHttp)?);
        if let Some(name) = options.text(UserAgent) {
            builder = builder.user_agent(name);
        }
        if let Some(url) = options.text(ProxyUrl) {
            let mut proxy = Proxy::all(url).map_err(failed)?;
            if let Some(authority) = options.text(ProxyCaCertificate) {
                builder = builder.tls_certs_merge([Certificate::from_pem(authority.as_bytes()).map_err(failed)?]);
            }
            if let Some(excluded) = options.text(ProxyExcludes) {
                proxy = proxy.no_proxy(NoProxy::from_string(&excluded));
            }
            builder = builder.proxy(proxy);
        }
        let authorities = self.authorities.iter().cloned();
        builder = match options.is(NoSystemCertificates)? {
            true => builder.tls_certs_only(authorities),
            false => builder.tls_certs_merge(authorities),
        };
        for (key, set) in DURATIONS {
            if let Some(duration) = options.duration(key)? {
                builder = set(builder, duration);
            }
        }
        for (key, set) in SWITCHES {
            if options.is(key)? {
                builder = set(builder);
            }
        }
        if let Some(most) = options.number(PoolMaxIdlePerHost)? {
            builder = builder.pool_max_idle_per_host(most);
        }
        if let Some(size) = options.number::<u32>(Http2MaxFrameSize)? {
            builder = builder.http2_max_frame_size(size);
        }
        Ok(HttpClient::new(builder.build().map_err(failed)?))
    }
}

fn failed(error: reqwest::Error) -> Error {
    Error::Generic { store: "HTTP client", source: Box::new(error.without_url()) }
}

/// object_store's options in the forms that its own client reads.
struct Options<'a>(&'a ClientOptions);

impl Options<'_> {
    fn text(&self, key: ClientConfigKey) -> Option<String> {
        self.0.get_config_value(&key)
    }

    fn parsed<T>(&self, key: ClientConfigKey, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let wrong =
            || Error::Generic { store: "HTTP client", source: format!("{}: found {text:?}", key.as_ref()).into() };
        parse(&text).map(Some).ok_or_else(wrong)
    }

    fn is(&self, key: ClientConfigKey) -> Result<bool> {
        let is = self.parsed(key, |text| match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "on" | "yes" | "y" => Some(true),
            "0" | "false" | "off" | "no" | "n" => Some(false),
            _ => None,
        });
        Ok(is?.unwrap_or(false))
    }

    fn number<T: FromStr>(&self, key: ClientConfigKey) -> Result<Option<T>> {
        self.parsed(key, |text| text.parse().ok())
    }

    fn duration(&self, key: ClientConfigKey) -> Result<Option<Duration>> {
        self.parsed(key, |text| humantime::parse_duration(text).ok())
    }
}

/// Spreads connections over the addresses of a name.
struct Shuffled;

impl Resolve for Shuffled {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let mut addresses: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            #[expect(clippy::disallowed_methods, reason = "no decision depends on which address is tried first")]
            addresses.shuffle(&mut rand::rng());
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
