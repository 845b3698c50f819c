//! What is reported to `tracing` (IN7).

use std::collections::HashMap;
use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use trio::instrument::{Tracing, add_instrument, remove_instrument};
use trio::{Builder, Error, Result, checkpoint, open_nursery};

/// Records what is reported to it: spans by the name of their task, events with the span that they
/// are in.
#[derive(Clone, Default)]
struct Notes(Arc<State>);

#[derive(Default)]
struct State {
    last: AtomicU64,
    names: Mutex<HashMap<u64, String>>,
    entered: Mutex<Vec<u64>>,
    lines: Mutex<Vec<String>>,
}

impl Notes {
    fn note(&self, line: String) {
        self.0.lines.lock().unwrap().push(line);
    }

    fn name(&self, id: u64) -> String {
        self.0.names.lock().unwrap()[&id].clone()
    }

    fn current(&self) -> String {
        let top = self.0.entered.lock().unwrap().last().copied();
        top.map_or("nothing".to_owned(), |id| self.name(id))
    }

    fn lines(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lines.lock().unwrap())
    }
}

/// The value of one field.
struct Value(&'static str, String);

impl Visit for Value {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == self.0 {
            write!(self.1, "{value:?}").expect("a string has room");
        }
    }
}

impl Subscriber for Notes {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let id = self.0.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (mut name, mut place) = (Value("name", String::new()), Value("place", String::new()));
        attributes.record(&mut name);
        attributes.record(&mut place);
        assert!(place.1.contains("tests/it/spans.rs:"), "{}", place.1);
        self.note(format!("{} inside {}", name.1, self.current()));
        self.0.names.lock().unwrap().insert(id, name.1);
        Id::from_u64(id)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut message = Value("message", String::new());
        event.record(&mut message);
        let parent = event.parent().map(|id| self.name(id.into_u64()));
        let parent = parent.unwrap_or_else(|| self.current());
        if event.metadata().target() != "trio::io" {
            self.note(format!("{parent}: {}", message.1));
        }
    }

    fn enter(&self, span: &Id) {
        self.0.entered.lock().unwrap().push(span.into_u64());
    }

    fn exit(&self, span: &Id) {
        let left = self.0.entered.lock().unwrap().pop();
        assert_eq!(left, Some(span.into_u64()), "spans are left in order");
    }
}

#[test]
fn in7_each_task_has_a_span_in_which_it_is_polled() {
    let notes = Notes::default();
    let result = tracing::subscriber::with_default(notes.clone(), || {
        Builder::new().instrument(Tracing::new()).run(async {
            tracing::info!("hello");
            open_nursery(async |nursery| {
                nursery.start_soon_named("child", async {
                    tracing::info!("from the child");
                    checkpoint().await?;
                    tracing::info!("again");
                    Ok(())
                });
                tracing::info!("from the body");
                Ok(())
            })
            .await
        })
    });
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(notes.current(), "nothing", "every span has been left");
    let lines = notes.lines();
    let has = |line: &str| lines.iter().any(|other| other == line);
    assert_eq!(
        lines.first().map(String::as_str),
        Some("nothing: the run begins")
    );
    assert_eq!(
        lines.last().map(String::as_str),
        Some("nothing: the run has ended")
    );
    for line in [
        "\"main\" inside nothing",
        "\"main\": spawned",
        "\"main\": ready",
        "\"main\": hello",
        "\"child\" inside \"main\"",
        "\"main\": from the body",
        "\"child\": from the child",
        "\"child\": again",
        "\"child\": ended",
        "\"main\": ended",
    ] {
        assert!(has(line), "{line} is not among {lines:#?}");
    }
}

#[test]
fn in7_it_may_come_late_and_go_early() {
    let notes = Notes::default();
    let result: Result<()> = tracing::subscriber::with_default(notes.clone(), || {
        trio::run(async {
            let key = add_instrument(Tracing::new());
            checkpoint().await?;
            tracing::info!("inside");
            remove_instrument(key)?;
            tracing::info!("outside");
            checkpoint().await?;
            Ok::<(), Error>(())
        })
    });
    assert!(result.is_ok(), "{result:?}");
    let lines = notes.lines();
    assert!(lines.contains(&"\"main\": inside".to_owned()), "{lines:#?}");
    assert!(lines.contains(&"nothing: outside".to_owned()), "{lines:#?}");
    assert_eq!(notes.current(), "nothing");
}
