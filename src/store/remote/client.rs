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
    Certificate, Client, NoProxy, Proxy,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};

/// Makes clients that trust `authorities` as well.
#[derive(Debug, Clone, Default)]
pub(super) struct Connector {
    pub(super) authorities: Vec<Certificate>,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient> {
        let options = Options(options);
        let mut builder = Client::builder()
            .redirect(redirect::Policy::none())
            .referer(false)
            .user_agent(
                options.text(UserAgent).unwrap_or_else(|| concat!("moesync/", env!("CARGO_PKG_VERSION")).to_owned()),
            )
            // A decoded body does not have the size of the object.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .https_only(!options.is(AllowHttp)?);
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
        if options.is(AllowInvalidCertificates)? {
            builder = builder.danger_accept_invalid_certs(true);
        }
        if let Some(limit) = options.duration(Timeout)? {
            builder = builder.timeout(limit);
        }
        if let Some(limit) = options.duration(ConnectTimeout)? {
            builder = builder.connect_timeout(limit);
        }
        if let Some(limit) = options.duration(ReadTimeout)? {
            builder = builder.read_timeout(limit);
        }
        if let Some(limit) = options.duration(PoolIdleTimeout)? {
            builder = builder.pool_idle_timeout(limit);
        }
        if let Some(most) = options.number(PoolMaxIdlePerHost)? {
            builder = builder.pool_max_idle_per_host(most);
        }
        if let Some(interval) = options.duration(Http2KeepAliveInterval)? {
            builder = builder.http2_keep_alive_interval(interval);
        }
        if let Some(limit) = options.duration(Http2KeepAliveTimeout)? {
            builder = builder.http2_keep_alive_timeout(limit);
        }
        if options.is(Http2KeepAliveWhileIdle)? {
            builder = builder.http2_keep_alive_while_idle(true);
        }
        if let Some(size) = options.number::<u32>(Http2MaxFrameSize)? {
            builder = builder.http2_max_frame_size(size);
        }
        if options.is(Http1Only)? {
            builder = builder.http1_only();
        }
        if options.is(Http2Only)? {
            builder = builder.http2_prior_knowledge();
        }
        if options.is(RandomizeAddresses)? {
            builder = builder.dns_resolver(Arc::new(Shuffled));
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
