//! The page at `/`: a few files inside the binary, nothing from elsewhere.

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};

/// A file of the page.
pub(super) struct File {
    pub(super) path: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

macro_rules! files {
    ($($path:literal $kind:literal $file:literal)+) => {
        &[$(File { path: $path, kind: $kind, bytes: include_bytes!(concat!("page/", $file)) },)+]
    };
}

/// All of them.
pub(super) const FILES: &[File] = files! {
    "/" "text/html; charset=utf-8" "index.html"
    "/style.css" "text/css; charset=utf-8" "style.css"
    "/favicon.svg" "image/svg+xml" "favicon.svg"
    "/app.js" "text/javascript; charset=utf-8" "app.js"
    "/js/address.js" "text/javascript; charset=utf-8" "js/address.js"
    "/js/api.js" "text/javascript; charset=utf-8" "js/api.js"
    "/js/arrange.js" "text/javascript; charset=utf-8" "js/arrange.js"
    "/js/details.js" "text/javascript; charset=utf-8" "js/details.js"
    "/js/dom.js" "text/javascript; charset=utf-8" "js/dom.js"
    "/js/health.js" "text/javascript; charset=utf-8" "js/health.js"
    "/js/keys.js" "text/javascript; charset=utf-8" "js/keys.js"
    "/js/list.js" "text/javascript; charset=utf-8" "js/list.js"
    "/js/store.js" "text/javascript; charset=utf-8" "js/store.js"
    "/js/time.js" "text/javascript; charset=utf-8" "js/time.js"
    "/js/timeline.js" "text/javascript; charset=utf-8" "js/timeline.js"
};

/// Only what we serve ourselves may be loaded, run or asked: names in incidents are not ours to trust.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

impl IntoResponse for &'static File {
    fn into_response(self) -> Response {
        let mut response = self.bytes.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::FILES;

    #[test]
    fn what_the_page_shows_goes_in_as_text() {
        let markup = [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "createContextualFragment",
            "DOMParser",
            "setHTMLUnsafe",
            "srcdoc",
            "eval(",
            "new Function",
        ];
        for file in FILES.iter().filter(|file| file.path.ends_with(".js")) {
            let text = std::str::from_utf8(file.bytes).expect("text");
            for way in markup {
                assert!(!text.contains(way), "{}: {way}", file.path);
            }
        }
    }
}
