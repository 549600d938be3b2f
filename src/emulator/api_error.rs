//! Errors of the JSON APIs, each in the form of its API and version.
//!
//! This file owns bodies and headers of refusals. It must not know the reasons for refusals.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    endpoint::{Api, Endpoint, Version},
    json_checks::InvalidField,
    rates::RateStatus,
};

/// An error in the form of its API. Not documented, and modelled on other errors: 403 of the listings, 429 of
/// statistics, and the codes of v5 except `VALIDATION_FAILED`.
#[derive(Debug)]
pub(super) struct JsonApiError {
    endpoint: Endpoint,
    status: StatusCode,
    problem: Option<InvalidField>,
    /// Empty if none is known.
    request_id: String,
    rate: Option<RateStatus>,
    /// In seconds.
    retry_after: Option<u32>,
}

impl JsonApiError {
    /// Without any details.
    pub(super) fn of(endpoint: Endpoint, status: StatusCode) -> JsonApiError {
        JsonApiError { endpoint, status, problem: None, request_id: String::new(), rate: None, retry_after: None }
    }

    /// The same, as the response to the request with that id.
    pub(super) fn to(self, request_id: &str) -> JsonApiError {
        JsonApiError { request_id: request_id.to_owned(), ..self }
    }

    pub(super) fn because(self, problem: InvalidField) -> JsonApiError {
        JsonApiError { problem: Some(problem), ..self }
    }

    /// With the rate limit's headers.
    pub(super) fn at(self, rate: RateStatus) -> JsonApiError {
        JsonApiError { rate: Some(rate), ..self }
    }

    /// With `Retry-After`, in versions that send it.
    pub(super) fn again_after(self, seconds: u32) -> JsonApiError {
        JsonApiError { retry_after: (self.endpoint.version == Version::V5).then_some(seconds), ..self }
    }
}

impl IntoResponse for JsonApiError {
    fn into_response(self) -> Response {
        let target = self.problem.as_ref().map_or("", |problem| problem.target.as_str());
        let message = self.problem.as_ref().map(|problem| problem.message.as_str());
        let body = match self.endpoint {
            Endpoint { api: Api::Stats, .. } => stats_error(self.status, target, message),
            Endpoint { version: Version::V1, .. } => listing_error(self.status, target, message, &self.request_id),
            Endpoint { version: Version::V5, .. } => v5_error(self.status, target, message, &self.request_id),
        };
        let mut response =
            (self.status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(rate) = self.rate {
            rate.write(response.headers_mut());
        }
        response
    }
}

fn stats_error(status: StatusCode, target: &str, message: Option<&str>) -> Value {
    let (title, description, code) = match status {
        StatusCode::BAD_REQUEST => {
            let message = message.unwrap_or("Some of the field values are invalid");
            ("Invalid Field Value", Some(format!("{target} - {message}")), "wUcwPRZF")
        }
        StatusCode::UNAUTHORIZED => {
            ("Authentication required", Some("Invalid identity information found.".to_owned()), "wUcwPRZF")
        }
        StatusCode::FORBIDDEN => ("Forbidden Request", None, "kmqLuuHM"),
        StatusCode::TOO_MANY_REQUESTS => ("Too Many Requests", Some("Rate limit exceeded".to_owned()), "tMrLXcQs"),
        _ => {
            let description = "An unexpected error was encountered while processing this request. Please contact \
                               MoEngage Team";
            ("Server Error", Some(description.to_owned()), "jDTGSxjd")
        }
    };
    json!({"title": title, "description": description, "code": code})
}

fn listing_error(status: StatusCode, target: &str, message: Option<&str>, request_id: &str) -> Value {
    // Document 003, the three samples after the sample response.
    if status == StatusCode::UNAUTHORIZED {
        let detail = json!({
            "code": "InvalidValue", "target": "APP_SECRET_KEY", "message": "Invalid APP_SECRET_KEY is provided.",
        });
        return json!({"error": {
            "code": "401 Authentication error", "message": "Authentication required", "target": "APP_SECRET_KEY",
            "details": [{"code": "InvalidValue", "target": "APP_SECRET_KEY", "message": [detail]}],
            "request_id": request_id,
        }});
    }
    let code = match status {
        StatusCode::TOO_MANY_REQUESTS => "429 conflict".to_owned(),
        other => other.to_string(),
    };
    let message = message.unwrap_or(match status {
        StatusCode::BAD_REQUEST => "Some of the field values are invalid",
        StatusCode::FORBIDDEN => "This feature is not enabled for your account",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit",
        _ => "Something went wrong. Please contact Moengage team",
    });
    json!({"error": {
        "code": code, "message": message, "target": target,
        "details": [{"target": target, "message": message}],
        "request_id": request_id,
    }})
}

fn v5_error(status: StatusCode, target: &str, message: Option<&str>, request_id: &str) -> Value {
    let (code, default) = match status {
        StatusCode::BAD_REQUEST => ("VALIDATION_FAILED", "Some of the field values are invalid"),
        StatusCode::UNAUTHORIZED => ("AUTHENTICATION_FAILED", "Authentication required"),
        StatusCode::FORBIDDEN => ("FORBIDDEN", "This feature is not enabled for your account"),
        StatusCode::TOO_MANY_REQUESTS => ("RATE_LIMIT_EXCEEDED", "Rate limit exceeded"),
        _ => ("INTERNAL_SERVER_ERROR", "Something went wrong. Please contact Moengage team"),
    };
    let message = message.unwrap_or(default);
    json!({
        "response_id": request_id,
        "error": {
            "code": code, "message": message, "target": target,
            "details": [{"target": target, "message": message}],
            "request_id": request_id,
        },
    })
}
