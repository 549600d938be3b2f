//! An archive: the signed request, the outcome of its status, and its bytes as they arrive.
//!
//! This file owns what MoEngage's archive APIs have in common. It must not know the contents of an archive.

use bytes::Bytes;
use jiff::civil;
use reqwest::{StatusCode, header::CONTENT_TYPE};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::Instant;
use url::Url;

use super::{
    Client,
    address::archive_url,
    body::Body,
    campaign_report, daily_dump,
    encoding::{AnnouncedGzip, Layers, MOST_LAYERS},
    error_body::{self, ErrorBody},
    head::{header, status_text},
    redact::Redactor,
    status,
    transport::{Request, Response},
};
use crate::{
    config::{ArchiveSource, Report},
    outcome::{Evidence, Failure, Outcome, Remark},
    signature,
};

/// An archive whose bytes are yet to be read.
pub struct Download {
    /// Size in bytes; `None` if the server did not announce it, or if a gzip is decompressed while reading.
    pub content_length: Option<u64>,
    /// As the server names it. For the manifest only: MoEngage sends zips as `application/gzip`.
    pub content_type: Option<String>,
    /// What the response showed.
    pub evidence: Evidence,
    /// Whether the server announced a gzip that is kept: see [`AnnouncedGzip::Archive`].
    pub is_packed: bool,
    body: Body,
    layers: Layers,
    body_ended: bool,
    failed: Option<Failure>,
    redactor: Redactor,
}

impl Client {
    /// Requests the archive of `date`, signed with `secret`. `gzip` is the meaning of a gzip around the body.
    ///
    /// `limits.attempt_timeout` begins here and ends with the last byte. The headers must arrive within two minutes.
    ///
    /// # Errors
    ///
    /// Every response that is not an archive, with its outcome.
    pub async fn open(
        &self,
        report: &Report,
        archive: &ArchiveSource,
        date: civil::Date,
        secret: &SecretString,
        gzip: AnnouncedGzip,
    ) -> Result<Download, Failure> {
        let started = Instant::now();
        let opened = async {
            let url = archive_url(report, archive, date);
            let source_url = url.to_string();
            let signature = signature::sign(&report.workspace.app_id, &report.file_name(date), secret);
            let redactor = Redactor::new(secret, &signature);
            let request =
                request(archive, url, &signature).map_err(|message| Failure::new(Outcome::Rejected, message))?;
            let response = self.transport.send(request, &redactor).await?;
            match status::archive_outcome(response.status, response.redirected_to.is_some()) {
                Some(outcome) => Err(refusal(outcome, response, report, source_url, &redactor).await),
                None => Download::begin(response, gzip, redactor).await,
            }
        }
        .await;
        tracing::debug!(
            workspace = report.workspace.name,
            report = report.id.name(),
            date = %date,
            http_status = opened.as_ref().map_or_else(|failure| failure.evidence.http_status, |_| Some(200)),
            elapsed_seconds = started.elapsed().as_secs_f64(),
            "requested an archive from MoEngage"
        );
        opened
    }
}

impl Download {
    /// Reads until it is known whether each announced gzip is present.
    async fn begin(response: Response, gzip: AnnouncedGzip, mut redactor: Redactor) -> Result<Self, Failure> {
        if let Some(query) = &response.presigned {
            redactor.withhold_query(query.expose_secret());
        }
        let announced = Layers::announced_by(&response.headers).map_err(|layers| {
            Failure::after(
                &response.evidence,
                Outcome::Corrupt,
                format!(
                    "the server announced {layers} layers of gzip around the archive; at most {MOST_LAYERS} are decompressed"
                ),
            )
        })?;
        let mut download = Download {
            content_length: response.body.announced_length(),
            content_type: header(&response.headers, CONTENT_TYPE.as_str(), &redactor),
            evidence: response.evidence,
            is_packed: gzip == AnnouncedGzip::Archive && announced.are_announced(),
            layers: match gzip {
                AnnouncedGzip::Transport => announced,
                AnnouncedGzip::Archive => Layers::as_received(),
            },
            body: response.body,
            body_ended: false,
            failed: None,
            redactor,
        };
        // A possible layer that is not announced is decided as the bytes are read.
        while download.layers.are_announced() {
            download.receive().await?;
        }
        Ok(download)
    }

    /// The next bytes of the archive; `None` at its proper end. Only the time of this call counts for the minimum rate.
    ///
    /// # Errors
    ///
    /// `unavailable` when the vendor is too slow or the connection is lost, `corrupt` when the body is incomplete.
    /// After an error, every call returns the same error.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        if let Some(failure) = &self.failed {
            return Err(failure.clone());
        }
        let chunk = self.next_chunk().await;
        self.failed = chunk.as_ref().err().cloned();
        chunk
    }

    async fn next_chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            if let Some(bytes) = self.layers.next().map_err(|error| self.damaged_gzip(error))? {
                return Ok(Some(bytes));
            }
            if self.body_ended {
                return Ok(None);
            }
            self.receive().await?;
        }
    }

    /// A text that may quote the body, without the secrets that the server may have written into it.
    pub fn redact(&self, text: &str) -> String {
        self.redactor.redact(text)
    }

    async fn receive(&mut self) -> Result<(), Failure> {
        match self.body.chunk().await {
            Ok(Some(bytes)) => self.layers.feed(bytes).map_err(|error| self.damaged_gzip(error))?,
            Ok(None) => {
                self.body_ended = true;
                self.layers.end().map_err(|error| self.damaged_gzip(error))?;
            }
            Err(failure) => return Err(Failure { message: self.redactor.redact(&failure.message), ..failure }),
        }
        if self.layers.is_stripped() {
            self.content_length = None;
        }
        Ok(())
    }

    fn damaged_gzip(&self, error: std::io::Error) -> Failure {
        let remark = Remark::DamagedWrapper;
        let message = self.redactor.redact(&format!("{remark}: {error}"));
        Failure { remark: Some(remark), ..Failure::after(&self.evidence, Outcome::Corrupt, message) }
    }
}

fn request(archive: &ArchiveSource, url: Url, signature: &SecretString) -> Result<Request, String> {
    match archive {
        ArchiveSource::CampaignReport { .. } => {
            campaign_report::request(url, signature).map_err(|error| error.to_string())
        }
        ArchiveSource::DailyDump { .. } => Ok(daily_dump::request(url, signature)),
    }
}

/// The failure of a response that is not an archive.
async fn refusal(
    outcome: Outcome,
    mut response: Response,
    report: &Report,
    source_url: String,
    redactor: &Redactor,
) -> Failure {
    let status = response.status;
    // The target of a redirect is not MoEngage: its body and `Retry-After` do not count, and may hold its own query.
    let (error, retry_after) = match response.redirected_to {
        None if !status.is_success() => (
            error_body::read(&mut response.body, redactor).await,
            status::retry_after(status, &response.headers, response.evidence.vendor_date),
        ),
        _ => (ErrorBody::default(), None),
    };
    let summary = summary(outcome, status, response.redirected_to.as_deref(), report, &source_url);
    let request_id = error.request_id.clone().or(response.evidence.request_id);
    let mut message = error.follow(summary);
    if let Some(id) = &request_id {
        message = format!("{message} (request {id})");
    }
    Failure::after(&Evidence { request_id, retry_after, ..response.evidence }, outcome, message)
}

/// What MoEngage answered, and what to do about it.
fn summary(
    outcome: Outcome,
    status: StatusCode,
    redirected_to: Option<&str>,
    report: &Report,
    source_url: &str,
) -> String {
    let answered = status_text(status);
    if let Some(target) = redirected_to {
        return format!("MoEngage redirected {source_url} to {target}, which answered {answered}");
    }
    match outcome {
        Outcome::Unauthorized => format!(
            "MoEngage refused the signature for {source_url} ({answered}); check app_id and secret key of workspace {}, the \
             key's scopes, and whether MoEngage's API firewall lists this machine's address",
            report.workspace.name
        ),
        // Campaign Report API names the causes of 400; that of the firewall is MoEngage's current documentation.
        Outcome::NotPublished if status == StatusCode::BAD_REQUEST => format!(
            "MoEngage has no {source_url} ({answered}): it is not published yet, has expired, or has another name; or \
             MoEngage's API firewall does not list this machine's address"
        ),
        Outcome::NotPublished => format!("MoEngage has no {source_url} ({answered})"),
        Outcome::RateLimited => format!("MoEngage's rate limit is reached ({answered} for {source_url})"),
        Outcome::Corrupt if status == StatusCode::NON_AUTHORITATIVE_INFORMATION => format!(
            "a proxy changed what MoEngage sent for {source_url} ({answered}), so it is not stored; configure the proxy to \
             pass responses on unchanged"
        ),
        Outcome::Corrupt => format!("MoEngage answered {answered} without an archive for {source_url}"),
        _ if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            format!("the proxy requires other credentials ({answered} for {source_url}); see network.proxy")
        }
        _ => format!("MoEngage failed to serve {source_url} ({answered})"),
    }
}
