//! A look at the tasks of a run from outside (RN).

use rustix::process::{Signal as Raw, getpid, kill_process};
use trio::io::signal::{Signal, dump_on_signal};
use trio::testing::wait_all_tasks_blocked;
use trio::{Backend, Builder, Error, fail_after, open_memory_channel, open_nursery, sleep_forever};

use crate::support::secs;

#[test]
fn rn9_a_signal_shows_what_every_task_waits_in() {
    for backend in [Backend::IoUring, Backend::Polling] {
        let main = async {
            let (seen, dumps) = open_memory_channel(4);
            dump_on_signal(Signal::USER_2, move |tree| {
                seen.try_send(tree.to_string()).unwrap();
            })?;
            let all = open_nursery(async |nursery| {
                nursery.start_soon_named("stuck", sleep_forever());
                wait_all_tasks_blocked(secs(0)).await?;
                for _ in 0..2 {
                    kill_process(getpid(), Raw::USR2).unwrap();
                    let dump = dumps.receive().await?;
                    let stuck = dump.lines().find(|line| line.contains("stuck")).unwrap();
                    assert!(stuck.contains("tests/it/dump.rs"), "{dump}");
                    assert!(
                        stuck.contains("waits in sleep_forever for another "),
                        "{dump}"
                    );
                }
                nursery.cancel_scope().cancel("seen");
                Ok(())
            });
            fail_after(secs(20), all).await?;
            Ok::<_, Error>(())
        };
        Builder::new().backend(backend).run(main).unwrap();
    }
}
