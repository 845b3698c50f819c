//! Groups of errors: how they are made, taken apart and printed (G).

use std::io;

use trio::{
    BrokenResource, BusyResource, CancelScope, Cancelled, ClosedResource, EndOfChannel, Error,
    NestedTooDeeply, Result, RunFinished, TooSlow, WouldBlock, checkpoint, finally, open_nursery,
    sleep_forever,
};

use crate::support::{failure, oops, shape};

/// The cancellation of a scope that was cancelled with `reason`.
async fn cancelled(reason: &'static str) -> Error {
    let scope = CancelScope::new();
    scope.cancel(reason);
    let mut error = None;
    let kept = scope
        .enter(async {
            error = checkpoint().await.err();
            Ok(())
        })
        .await;
    assert!(kept.is_ok());
    error.expect("the scope has been cancelled")
}

#[trio::test]
async fn g1_each_level_of_nursery_is_a_level_of_group() -> Result<()> {
    let inner = async |what: &'static str| {
        open_nursery(async |nursery| {
            nursery.start_soon(async { oops("child") });
            trio::lowlevel::cancel_shielded_checkpoint().await;
            oops::<()>(what)
        })
        .await
    };
    let result = open_nursery(async |nursery| {
        nursery.start_soon(inner("inside"));
        Ok(())
    })
    .await;
    let text = failure(result);
    assert!(
        text == "[[child inside]]" || text == "[[inside child]]",
        "{text}"
    );
    Ok(())
}

#[trio::test]
async fn g1_a_group_that_lost_its_cancellations_stays_a_group() -> Result<()> {
    let result = open_nursery(async |nursery| {
        nursery.start_soon(sleep_forever());
        nursery.start_soon(async {
            open_nursery(async |inner| {
                inner.start_soon(sleep_forever());
                oops::<()>("one")
            })
            .await
        });
        sleep_forever().await
    })
    .await;
    let error = result.expect_err("one has failed");
    assert_eq!(shape(&error), "[[one]]");
    let single = error.into_single().expect("there is only one leaf");
    assert_eq!(single.to_string(), "one");
    Ok(())
}

#[trio::test]
async fn g3_start_unwraps_its_own_level_and_no_other() -> Result<()> {
    open_nursery(async |nursery| {
        let plain = nursery.start::<(), _, _>(async |_| oops("plain")).await;
        assert_eq!(failure(plain), "plain");
        let own = nursery
            .start::<(), _, _>(async |_| Err(Error::group("mine", vec![Error::msg("in it")])))
            .await;
        assert_eq!(failure(own), "[in it]");
        let level = nursery
            .start::<(), _, _>(async |_| open_nursery(async |_| oops("deep")).await)
            .await;
        assert_eq!(failure(level), "[deep]");
        Ok(())
    })
    .await
}

#[trio::test]
async fn g3_an_error_of_start_keeps_its_cause() -> Result<()> {
    open_nursery(async |nursery| {
        let result = nursery
            .start::<(), _, _>(async |_| {
                Err(BrokenResource::because(io::Error::other("the wire")).into())
            })
            .await;
        let error = result.expect_err("it fails");
        let cause = error
            .downcast_ref::<BrokenResource>()
            .and_then(BrokenResource::cause);
        assert_eq!(cause.expect("it was given").to_string(), "the wire");
        Ok(())
    })
    .await
}

#[trio::test]
async fn g7_a_cancellation_is_recognised_on_its_way_back_from_foreign_errors() -> Result<()> {
    fn foreign(result: Result<()>) -> io::Result<()> {
        Ok(result?)
    }
    fn boxed(result: Result<()>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(result?)
    }
    let scope = CancelScope::new();
    let ended = scope
        .enter(async {
            scope.cancel("");
            assert!(
                boxed(checkpoint().await).is_err_and(|error| error.is::<Cancelled>()
                    || error.to_string().starts_with("cancelled due to explicit"))
            );
            foreign(checkpoint().await)?;
            Ok(())
        })
        .await?;
    assert_eq!(ended, None, "through an `io::Error` and back");

    let group = open_nursery(async |_| oops::<()>("x"))
        .await
        .expect_err("x");
    let back = Error::from(io::Error::from(group));
    assert_eq!(shape(&back), "[x]", "and so is a group");
    Ok(())
}

#[trio::test]
async fn g8_split_subgroup_and_leaves_keep_the_shape() -> Result<()> {
    let tree = || {
        let inner = vec![Error::from(TooSlow::new()), Error::msg("b")];
        Error::group("outer", vec![Error::msg("a"), Error::group("inner", inner)])
    };
    let (slow, rest) = tree().split(|leaf| leaf.is::<TooSlow>());
    assert_eq!(
        slow.as_ref().map(shape).as_deref(),
        Some("[[too slow: the deadline has passed]]")
    );
    assert_eq!(rest.as_ref().map(shape).as_deref(), Some("[a [b]]"));
    let (all, none) = tree().split(|_| true);
    assert_eq!(all.as_ref().map(shape), Some(shape(&tree())));
    assert!(none.is_none());
    assert!(tree().subgroup(|_| false).is_none());
    assert_eq!(tree().leaves().count(), 3);
    assert!(tree().into_single().is_err(), "there are three");
    let (lone, none) = Error::msg("a").split(|_| true);
    assert!(none.is_none());
    assert_eq!(
        lone.as_ref().map(shape).as_deref(),
        Some("a"),
        "a leaf stays a leaf"
    );
    Ok(())
}

#[trio::test]
async fn g8_only_cancellations_are_cancelled() -> Result<()> {
    let one = cancelled("one").await;
    assert!(one.is_cancelled() && one.as_cancelled().is_some());
    let group = Error::group("g", vec![cancelled("a").await, cancelled("b").await]);
    assert!(group.is_cancelled() && group.as_cancelled().is_none());
    let mixed = Error::group("g", vec![cancelled("a").await, Error::msg("b")]);
    assert!(!mixed.is_cancelled());
    let kept = one.downcast::<Cancelled>().expect("it is one").clone();
    assert_eq!(kept.reason(), Some("one"), "a copy tells the same");
    Ok(())
}

#[trio::test]
async fn g9_errors_read_as_a_line_and_as_a_tree() -> Result<()> {
    let wire = BrokenResource::because(io::Error::other("connection reset by peer"));
    let inner = vec![Error::from(wire), Error::msg("two\nlines")];
    let all = vec![
        Error::from(io::Error::other("disk full")),
        Error::group("while serving", inner),
        Error::from(TooSlow::new()),
    ];
    let error = Error::group("errors in a nursery", all);
    let line = "errors in a nursery (3 errors): disk full; \
                the resource was broken from the other side; two; and 1 more";
    assert_eq!(error.to_string(), line);
    assert_eq!(
        format!("{error:?}"),
        "errors in a nursery (3 errors)\n\
         ├─ disk full\n\
         ├─ while serving (2 errors)\n\
         │  ├─ the resource was broken from the other side: connection reset by peer\n\
         │  └─ two\n\
         │     lines\n\
         └─ too slow: the deadline has passed"
    );
    let lone = open_nursery(async |_| oops::<()>("x"))
        .await
        .expect_err("x");
    assert_eq!(lone.to_string(), "errors in a nursery (1 error): x");
    assert_eq!(format!("{lone:?}"), "errors in a nursery (1 error)\n└─ x");
    Ok(())
}

#[trio::test]
async fn g9_a_cancellation_tells_who_where_and_why() -> Result<()> {
    let line = line!() + 1;
    let error = cancelled("seen enough").await;
    let cancelled = error.as_cancelled().expect("it is one");
    let place = cancelled.place().expect("it was called");
    assert_eq!(place.file(), file!());
    assert!(place.line() < line);
    let text =
        format!("cancelled due to explicit with reason \"seen enough\" from task main at {place}");
    assert_eq!(error.to_string(), text);
    assert_eq!(format!("{error:?}"), text);
    assert_eq!(format!("{cancelled:?}"), format!("Cancelled({text})"));
    let plain = self::cancelled("").await;
    assert!(
        plain
            .to_string()
            .starts_with("cancelled due to explicit from task main at ")
    );
    Ok(())
}

#[test]
fn g9_the_small_errors_say_what_to_do() {
    let text = format!("{:?}", Error::msg("said by hand"));
    assert_eq!(text, "said by hand");
    fn is_error<E: std::error::Error + Send + Sync + 'static>() {}
    is_error::<NestedTooDeeply>();
    is_error::<Cancelled>();
    let boxed = Error::group("g", vec![Error::msg("a")]).into_boxed();
    assert_eq!(boxed.to_string(), "g (1 error): a");
    assert_eq!(shape(&Error::msg("a")), "a");
}

/// An error of a foreign library, with something inside.
#[derive(Debug)]
struct Foreign(Box<dyn std::error::Error + Send + Sync>);

impl std::fmt::Display for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the protocol has failed")
    }
}

impl std::error::Error for Foreign {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

#[trio::test]
async fn g7_every_error_comes_back_from_an_io_error_as_it_was() -> Result<()> {
    #[track_caller]
    fn check<E: std::error::Error + Send + Sync + 'static>(error: E, kind: io::ErrorKind) {
        let text = error.to_string();
        let travelling = Error::from(error).into_io();
        assert_eq!(travelling.kind(), kind, "{text}");
        assert_eq!(travelling.to_string(), text);
        let back = Error::from(travelling);
        assert!(back.is::<E>(), "{back:?}");
        assert_eq!(back.to_string(), text);
    }
    use io::ErrorKind::{BrokenPipe, Other, TimedOut};
    check(TooSlow::new(), TimedOut);
    check(BrokenResource::new(), BrokenPipe);
    check(WouldBlock::new(), Other);
    check(EndOfChannel::new(), Other);
    check(BusyResource::new(), Other);
    check(ClosedResource::new(), Other);
    check(RunFinished::new(), Other);
    check(Foreign("inside".into()), Other);
    let io = Error::from(io::Error::from(io::ErrorKind::NotFound)).into_io();
    assert_eq!(io.kind(), io::ErrorKind::NotFound, "it is none of ours");
    Ok(())
}

#[trio::test]
async fn g7_a_cancellation_is_found_inside_the_errors_of_others() -> Result<()> {
    let scope = CancelScope::new();
    scope.cancel("the reason");
    for wrap in [
        (|error| Error::from(Foreign(error.into_boxed()))) as fn(Error) -> Error,
        |error| Error::from(Foreign(Box::new(error.into_io()))),
        |error| Error::from(io::Error::other(Foreign(Box::new(error.into_io())))),
        |error| Error::from(Foreign(Box::new(Foreign(Box::new(error.into_io()))))),
    ] {
        let error = cancelled("the reason").await;
        let wrapped = wrap(error);
        let found = wrapped.as_cancelled().expect("it is a cancellation");
        assert_eq!(found.reason(), Some("the reason"));
    }
    // An error that is not a cancellation stays what it is.
    let other = Error::from(Foreign(Box::new(Error::msg("real").into_io())));
    assert!(other.is::<Foreign>());
    assert_eq!(format!("{other:?}"), "the protocol has failed: real");
    Ok(())
}

#[trio::test]
async fn g10_the_single_error_is_the_real_one() -> Result<()> {
    let group = |errors| Error::group("g", errors);
    // One, however deep.
    let deep = group(vec![group(vec![group(vec![Error::from(TooSlow::new())])])]);
    assert!(deep.into_single().is_ok_and(|error| error.is::<TooSlow>()));
    // A real error takes precedence over cancellations.
    let mixed = group(vec![
        cancelled("a").await,
        group(vec![Error::msg("real"), cancelled("b").await]),
    ]);
    assert_eq!(
        mixed
            .into_single()
            .map(|error| shape(&error))
            .ok()
            .as_deref(),
        Some("real")
    );
    // Of several cancellations, the first.
    let several = group(vec![
        cancelled("a").await,
        group(vec![cancelled("b").await]),
    ]);
    let single = several.into_single().expect("nothing else has happened");
    assert_eq!(single.as_cancelled().and_then(Cancelled::reason), Some("a"));
    // Two real errors stay as they are, whatever lies between.
    let two = group(vec![
        Error::msg("one"),
        cancelled("a").await,
        group(vec![Error::msg("two")]),
    ]);
    let kept = two.into_single().expect_err("there are two");
    assert_eq!(shape(&kept), "[one cancelled [two]]");
    // Its causes come along.
    let cause = BrokenResource::because(io::Error::other("the wire"));
    let single = group(vec![cause.into()]).into_single().expect("one");
    assert_eq!(
        format!("{single:?}"),
        "the resource was broken from the other side: the wire"
    );
    assert_eq!(shape(&Error::msg("x").into_single().expect("one")), "x");
    Ok(())
}

#[trio::test]
async fn g8_leaves_come_out_by_value_in_their_order() -> Result<()> {
    let inner = Error::group("inner", vec![Error::msg("b"), Error::msg("c")]);
    let tree = Error::group("outer", vec![Error::msg("a"), inner, Error::msg("d")]);
    let texts: Vec<String> = tree.into_leaves().iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["a", "b", "c", "d"]);
    assert_eq!(Error::msg("alone").into_leaves().len(), 1);
    // One level only, and not of an error that is not a group.
    let inner = Error::group("inner", vec![Error::msg("b")]);
    let members = Error::group("outer", vec![Error::msg("a"), inner]).into_group()?;
    let shapes: Vec<String> = members.iter().map(shape).collect();
    assert_eq!(shapes, ["a", "[b]"]);
    assert_eq!(failure(Error::msg("alone").into_group()), "alone");
    Ok(())
}

#[trio::test]
async fn g9_the_tree_can_be_asked_for_in_text() -> Result<()> {
    let tree = Error::group("g", vec![Error::msg("a"), Error::msg("b")]);
    assert_eq!(format!("{tree}"), "g (2 errors): a; b");
    assert_eq!(format!("{tree:#}"), "g (2 errors)\n├─ a\n└─ b");
    assert_eq!(format!("{tree:#}"), format!("{tree:?}"));
    assert_eq!(format!("{:#}", Error::msg("alone")), "alone");
    Ok(())
}

#[trio::test]
async fn g11_an_error_while_cleaning_up_does_not_replace_the_first() -> Result<()> {
    let good = async || Ok(7);
    let nothing = async || Ok(());
    assert_eq!(finally(good(), nothing()).await?, 7);
    assert_eq!(
        failure(finally(good(), async { oops("cleanup") }).await),
        "cleanup"
    );
    assert_eq!(
        failure(finally(async { oops::<()>("body") }, nothing()).await),
        "body"
    );
    let both = finally(async { oops::<()>("body") }, async { oops("cleanup") }).await;
    assert_eq!(failure(both), "[body cleanup]");

    let scope = CancelScope::new();
    scope.cancel("");
    let ended = scope.enter(finally(checkpoint(), checkpoint())).await?;
    assert_eq!(ended, None, "two cancellations are one");
    let scope = CancelScope::new();
    scope.cancel("");
    let ended = scope
        .enter(finally(checkpoint(), async { oops("cleanup") }))
        .await;
    assert_eq!(
        failure(ended),
        "[cleanup]",
        "the cancellation is caught, the error is not lost"
    );
    let scope = CancelScope::new();
    scope.cancel("");
    let ended = scope
        .enter(finally(async { oops::<()>("body") }, checkpoint()))
        .await;
    assert_eq!(failure(ended), "[body]");
    Ok(())
}

#[trio::test]
async fn g7_what_comes_in_a_box_is_what_it_was() -> Result<()> {
    let back = |error: Error| Error::from_boxed(error.into_boxed());
    assert!(back(cancelled("enough").await).is_cancelled());
    assert!(back(Error::from(TooSlow::new())).is::<TooSlow>());
    let io = back(io::Error::from(io::ErrorKind::AddrInUse).into());
    assert_eq!(io.downcast::<io::Error>()?.kind(), io::ErrorKind::AddrInUse);
    let group = back(Error::group("g", vec![Error::msg("a"), Error::msg("b")]));
    assert_eq!(group.as_group().map(<[Error]>::len), Some(2));
    // A cancellation that a foreign library has wrapped is found in a box too.
    let wrapped = io::Error::other(cancelled("enough").await.into_io());
    assert!(Error::from_boxed(Box::new(wrapped)).is_cancelled());
    assert_eq!(Error::from_boxed("a text".into()).to_string(), "a text");
    Ok(())
}
