//! The command line, the environment, and the demo.

use crate::server::{Server, echo, output_of};

crate::on_both_backends! {
    a_demo_checks_and_measures,
}

fn a_demo_checks_and_measures(backend: &str) {
    for workers in ["1", "2"] {
        let mut command = echo();
        command.args(["--demo", "0.2", "--backend", backend, "--workers", workers]);
        let ended = output_of(command);
        assert_eq!(ended.code, Some(0), "{}", ended.errors);
        assert_eq!(ended.errors, "");
        let mut lines = ended.output.lines();
        let mut cells = |first: &str| {
            let line = lines.find(|line| line.starts_with(first)).unwrap();
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(cells("listening tcp 127.0.0.1:").last().unwrap(), backend);
        let head = ["backend", "message", "messages/s", "p50", "p99", "p99.9"];
        assert_eq!(cells("backend"), head);
        let row = cells(backend);
        assert_eq!(row[1..3], ["64", "B"]);
        assert!(row[3].parse::<u64>().unwrap() > 0);
        let latencies: Vec<u64> = [4, 6, 8].map(|at| row[at].parse().unwrap()).into();
        assert!(latencies.is_sorted(), "{latencies:?}");
        assert!(
            cells("connections:")
                .join(" ")
                .contains("(64 ended, 0 failed, 0 cut off)")
        );
    }
}

#[test]
fn help_is_no_mistake() {
    let mut command = echo();
    command.arg("--help");
    let ended = output_of(command);
    assert_eq!(ended.code, Some(0));
    assert!(ended.output.contains("usage: echo [--tcp ADDR]..."));
}

#[test]
fn a_mistake_on_the_command_line_is_met_with_what_was_expected() {
    let mut command = echo();
    command.args(["--tcp", "localhost"]);
    let ended = output_of(command);
    assert_eq!(ended.code, Some(2));
    assert_eq!(ended.output, "");
    let told = "echo: --tcp expects an address such as 127.0.0.1:7000 or [::1]:0, not \
                \"localhost\"; `--help` tells more\n";
    assert_eq!(ended.errors, told);
}

#[test]
fn the_environment_chooses_the_backend() {
    let mut command = echo();
    command.args(["--tcp", "127.0.0.1:0"]);
    command.env("TRIO_BACKEND", "nonsense");
    let ended = output_of(command);
    assert_eq!(ended.code, Some(1));
    let told = "echo: TRIO_BACKEND is \"nonsense\": set it to io_uring, polling or auto\n";
    assert_eq!(ended.errors, told);

    let mut command = echo();
    command.env("TRIO_BACKEND", "polling");
    let server = Server::start_as(command);
    assert!(server.banner.ends_with(" polling"), "{}", server.banner);
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let server = Server::start("auto", &[]);
    let address = server.address.to_string();
    let mut command = echo();
    command.args(["--tcp", &address]);
    let ended = output_of(command);
    assert_eq!(ended.code, Some(1));
    let told = format!(
        "echo: cannot listen on {address}: Address already in use (os error 98); another socket has \
         it: end that, or take another port\n"
    );
    assert_eq!(ended.errors, told);
    // One worker that cannot listen ends all of them: this port is not shared.
    let mut command = echo();
    command.args(["--workers", "4", "--tcp", &address]);
    let ended = output_of(command);
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.errors, told);
    assert_eq!(server.stop().code, Some(0));
}
