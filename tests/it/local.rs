//! Values of a run, of a task, and of a part of the tree (RV, LV).

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::rc::Rc;

use futures::FutureExt;
use trio::lowlevel::{RunVar, spawn_system_task};
use trio::testing::wait_all_tasks_blocked;
use trio::{Error, Result, TaskLocal, TreeVar, Usage, checkpoint, open_nursery, run};

use crate::support::secs;

static PLAIN: RunVar<u32> = RunVar::new("plain");
static WITH_DEFAULT: RunVar<String> = RunVar::with_default("with default", || "made".to_owned());

#[test]
fn rv1_each_run_has_a_value_of_its_own() {
    for _ in 0..2 {
        run(async {
            assert_eq!(PLAIN.get(), None);
            assert_eq!(WITH_DEFAULT.get().as_deref(), Some("made"));
            drop(PLAIN.set(7));
            drop(WITH_DEFAULT.set("set".to_owned()));
            assert_eq!(PLAIN.get(), Some(7));
            assert_eq!(WITH_DEFAULT.with(|value| value.map(String::len)), Some(3));
        });
    }
    assert_eq!(format!("{PLAIN:?}"), "RunVar(plain)");
}

#[trio::test]
async fn rv1_all_tasks_of_a_run_see_the_same_value() -> Result<()> {
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            drop(PLAIN.set(1));
            checkpoint().await?;
            assert_eq!(PLAIN.get(), Some(2));
            Ok(())
        });
        checkpoint().await?;
        assert_eq!(PLAIN.get(), Some(1));
        drop(PLAIN.set(2));
        Ok(())
    })
    .await
}

#[test]
fn rv1_a_value_is_dropped_with_its_run() {
    static HELD: RunVar<Rc<()>> = RunVar::new("held");
    let value = Rc::new(());
    run(async {
        drop(HELD.set(value.clone()));
        assert_eq!(Rc::strong_count(&value), 2);
    });
    assert_eq!(Rc::strong_count(&value), 1);
}

#[test]
fn rv1_outside_of_a_run_there_is_no_value() {
    let check = |call: fn()| {
        let panic = catch_unwind(call).expect_err("there is no run");
        let text = panic.downcast_ref::<&str>().expect("a text");
        assert!(text.starts_with("this works only inside a run"), "{text}");
    };
    check(|| assert_eq!(PLAIN.get(), None));
    check(|| drop(PLAIN.set(1)));
}

#[trio::test]
async fn rv2_a_token_brings_back_what_was_before() -> Result<()> {
    let unset = PLAIN.set(1);
    let one = PLAIN.set(2);
    PLAIN.reset(one)?;
    assert_eq!(PLAIN.get(), Some(1));
    PLAIN.reset(unset)?;
    assert_eq!(PLAIN.get(), None);
    static OTHER: RunVar<u32> = RunVar::new("other");
    let foreign = OTHER.set(1);
    let error = PLAIN.reset(foreign).expect_err("it is another's");
    assert!(error.is::<Usage>());
    assert_eq!(OTHER.get(), Some(1), "nothing has changed");
    Ok(())
}

#[test]
fn rv2_a_token_of_another_run_is_refused() {
    let token = run(async { PLAIN.set(1) });
    run(async {
        assert!(PLAIN.reset(token).is_err_and(|error| error.is::<Usage>()));
    });
}

static TASK: TaskLocal<u32> = TaskLocal::new("task");
static TREE: TreeVar<u32> = TreeVar::new("tree");

#[trio::test(backend = "all")]
async fn lv1_a_value_is_seen_inside_its_scope_and_nowhere_else() -> Result<()> {
    assert_eq!((TASK.get(), TREE.get()), (None, None));
    let inside = async {
        checkpoint().await?;
        assert_eq!((TASK.get(), TREE.get()), (Some(1), Some(2)));
        TASK.scope(3, async {
            checkpoint().await?;
            assert_eq!((TASK.get(), TREE.get()), (Some(3), Some(2)));
            assert_eq!(TASK.with(|value| value.copied()), Some(3));
            checkpoint().await
        })
        .await?;
        assert_eq!(TASK.get(), Some(1));
        Ok::<(), Error>(())
    };
    let beside = async {
        for _ in 0..5 {
            assert_eq!((TASK.get(), TREE.get()), (None, None));
            checkpoint().await?;
        }
        Ok(())
    };
    // In one task, in turn, and in two.
    let both = futures::future::try_join(TASK.scope(1, TREE.scope(2, inside)), beside);
    both.await?;
    assert_eq!((TASK.get(), TREE.get()), (None, None));
    assert_eq!(
        format!("{TASK:?} {TREE:?}"),
        "TaskLocal(task) TreeVar(tree)"
    );
    Ok(())
}

#[trio::test]
async fn lv1_a_scope_ends_with_a_panic_and_with_a_drop() -> Result<()> {
    let panics = TASK.scope(1, async { panic!("inside") });
    let caught = AssertUnwindSafe(panics).catch_unwind().await;
    assert!(caught.is_err());
    assert_eq!(TASK.get(), None);
    let value = Rc::new(());
    static HELD: TaskLocal<Rc<()>> = TaskLocal::new("held");
    let mut dropped = Box::pin(HELD.scope(value.clone(), checkpoint()));
    assert!(futures::poll!(&mut dropped).is_pending());
    assert!(HELD.get().is_none());
    drop(dropped);
    assert_eq!(Rc::strong_count(&value), 1);
    Ok(())
}

#[trio::test(backend = "all")]
async fn lv2_a_task_local_comes_from_the_spawner() -> Result<()> {
    let seen = RefCell::new(Vec::new());
    let look = async |who| {
        checkpoint().await?;
        seen.borrow_mut().push((who, TASK.get()));
        Ok(())
    };
    let around = open_nursery(async |nursery| {
        nursery.start_soon(look("body"));
        TASK.scope(2, async { nursery.start_soon(look("scope in the body")) })
            .await;
        nursery.start_soon(async {
            TASK.scope(3, async {
                nursery.start_soon(look("by a child"));
                checkpoint().await
            })
            .await
        });
        Ok(())
    });
    TASK.scope(1, around).await?;
    let mut seen = seen.into_inner();
    seen.sort_unstable();
    let expected = [
        ("body", Some(1)),
        ("by a child", Some(3)),
        ("scope in the body", Some(2)),
    ];
    assert_eq!(seen, expected);
    Ok(())
}

#[trio::test(backend = "all")]
async fn lv2_a_tree_var_comes_from_the_nursery() -> Result<()> {
    let seen = RefCell::new(Vec::new());
    let look = async |who| {
        checkpoint().await?;
        seen.borrow_mut().push((who, TREE.get(), TASK.get()));
        Ok(())
    };
    let around = open_nursery(async |outer| {
        TREE.scope(2, async {
            TASK.scope(9, async { outer.start_soon(look("outer")) })
                .await;
            open_nursery(async |inner| {
                inner.start_soon(look("inner"));
                inner.start_soon(async {
                    outer.start_soon(look("outer, from inside"));
                    Ok(())
                });
                Ok(())
            })
            .await
        })
        .await
    });
    TREE.scope(1, around).await?;
    let mut seen = seen.into_inner();
    seen.sort_unstable();
    let expected = [
        ("inner", Some(2), None),
        ("outer", Some(1), Some(9)),
        ("outer, from inside", Some(1), None),
    ];
    assert_eq!(seen, expected);
    Ok(())
}

#[trio::test]
async fn lv2_a_child_that_is_started_has_the_values_of_its_nursery_and_of_its_starter() -> Result<()>
{
    let seen = Cell::new(None);
    let around = open_nursery(async |nursery| {
        let start = nursery.start(async |status| {
            seen.set(Some((TASK.get(), TREE.get())));
            status.started(())
        });
        TREE.scope(2, TASK.scope(3, start)).await
    });
    TREE.scope(1, around).await?;
    assert_eq!(seen.get(), Some((Some(3), Some(1))));
    Ok(())
}

#[trio::test]
async fn lv2_a_system_task_has_no_values() -> Result<()> {
    let seen = Rc::new(Cell::new(None));
    let look = seen.clone();
    let spawn = async {
        spawn_system_task(async move {
            look.set(Some((TASK.get(), TREE.get())));
            Ok(())
        })
    };
    TREE.scope(1, TASK.scope(2, spawn)).await?;
    wait_all_tasks_blocked(secs(0)).await?;
    assert_eq!(seen.get(), Some((None, None)));
    Ok(())
}

#[trio::test]
async fn lv3_a_value_lives_no_longer_than_the_tasks_that_see_it() -> Result<()> {
    static HELD: TaskLocal<Rc<()>> = TaskLocal::new("held");
    let value = Rc::new(());
    let inside = open_nursery(async |nursery| {
        nursery.start_soon(async {
            checkpoint().await?;
            assert!(HELD.get().is_some());
            Ok(())
        });
        let handle = nursery.spawn(async { Ok(7) });
        checkpoint().await?;
        checkpoint().await?;
        assert!(handle.is_finished());
        Ok(())
    });
    HELD.scope(value.clone(), inside).await?;
    assert_eq!(Rc::strong_count(&value), 1);
    Ok(())
}

#[trio::test]
async fn lv3_thousands_of_scopes_are_dropped_by_a_loop() -> Result<()> {
    // Nested in each other, each in a box: what is long here is the list of the values.
    fn nested(left: u32) -> std::pin::Pin<Box<dyn Future<Output = Option<u32>>>> {
        if left == 0 {
            return Box::pin(async { TASK.get() });
        }
        Box::pin(TASK.scope(left, nested(left - 1)))
    }
    assert_eq!(nested(500).await, Some(1));
    Ok(())
}
