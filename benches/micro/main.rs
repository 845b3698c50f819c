//! What the runtime's own work costs: tasks, nurseries, scopes and timers, without any I/O.
//!
//! `cargo bench --bench micro -- [WORD] [--rounds N]` prints the table, or the rows with the word in
//! their names. `TRIO_BACKEND` chooses the driver that the loop asks between its turns. Rows with an
//! aim are those that the design has a figure for; `!` says that it has been missed.

#[path = "../support/mod.rs"]
mod support;

mod cancel;
mod channel;
mod nesting;
mod scope;
mod spawn;
mod sync;
mod threads;
mod timers;
mod waiting;
mod yielding;

fn main() {
    let arguments = support::Arguments::parse();
    let rows: Vec<support::Row> = [
        spawn::rows(),
        yielding::rows(),
        nesting::rows(),
        scope::rows(),
        cancel::rows(),
        channel::rows(),
        threads::rows(),
        timers::rows(),
        sync::rows(),
        waiting::rows(),
    ]
    .into_iter()
    .flatten()
    .collect();
    support::measure(&arguments, &rows);
}
