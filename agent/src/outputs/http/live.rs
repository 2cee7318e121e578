//! The live stream, as server-sent events.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use axum::{
    extract::State,
    response::{IntoResponse, Response, Sse, sse},
};
use tokio_stream::{Stream, StreamExt, wrappers::BroadcastStream};

use super::{
    App,
    error::{Misdirected, Unauthorized, Unavailable},
    limits::READERS,
};
use crate::outputs::{Rendered, stream::Reader};

/// A silent stream says so often that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Server-sent events: first every open incident, then each change (`event: incident`).
///
/// A reader that does not keep up gets `event: lagged` and must come again.
#[utoipa::path(
    get,
    path = "/api/v1/stream",
    operation_id = "streamIncidents",
    responses(
        (status = 200, description = "Events, without end.", body = String, content_type = "text/event-stream"),
        Unauthorized, Misdirected, Unavailable
    ),
    security((), ("password" = []))
)]
pub(super) async fn stream(State(app): State<Arc<App>>) -> Response {
    let place = Place::take(&app);
    let Some(place) = place else {
        return Unavailable::because(format!("{READERS} read the stream already"));
    };
    let Reader { open, number, changes } = app.hub.listen();
    let first = tokio_stream::iter(open.into_iter().map(move |incident| incident_event(number, &incident)));
    let counts = app.hub.counts.clone();
    let mut lagged = false;
    let later = BroadcastStream::new(changes).map_while(move |change| match change {
        _ if lagged => None,
        Ok((number, incident)) => Some(incident_event(number, &incident)),
        Err(tokio_stream::wrappers::errors::BroadcastStreamRecvError::Lagged(missed)) => {
            // The end of this stream: the reader comes again and gets what is open.
            lagged = true;
            counts.full.fetch_add(missed, Relaxed);
            Some(sse::Event::default().event("lagged").data(missed.to_string()))
        }
    });
    let events = first.chain(later).map(move |event| {
        let _held = &place;
        Ok::<_, Infallible>(event)
    });
    let keep_alive = sse::KeepAlive::new().interval(HEARTBEAT).text("alive");
    Sse::new(events_of(events)).keep_alive(keep_alive).into_response()
}

fn events_of<S>(events: S) -> impl Stream<Item = Result<sse::Event, Infallible>> + use<S>
where
    S: Stream<Item = Result<sse::Event, Infallible>>,
{
    // A first line at once: the reader knows that it is connected.
    tokio_stream::once(Ok(sse::Event::default().comment("culprit.stream"))).chain(events)
}

fn incident_event(number: u64, incident: &Rendered) -> sse::Event {
    sse::Event::default().event("incident").id(number.to_string()).data(incident.json())
}

/// A reader's place among those there may be.
struct Place(Arc<App>);

impl Place {
    fn take(app: &Arc<App>) -> Option<Self> {
        let taken = app
            .hub
            .counts
            .waiting
            .fetch_update(Relaxed, Relaxed, |readers| (readers < READERS).then_some(readers + 1));
        taken.ok().map(|_| Self(app.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.hub.counts.waiting.fetch_sub(1, Relaxed);
    }
}
