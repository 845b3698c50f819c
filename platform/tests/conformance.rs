//! What every driver keeps to: the same cases over all of them.
//!
//! A case talks to a driver through the trait alone, and lets it take as many turns as it wants. It
//! may not assume which of two things comes first unless the rules in `driver.rs` say so; the
//! simulation sees to that, for it runs each case under many seeds, without faults and with.

#![allow(clippy::unwrap_used)] // every file here is a test, though the lint cannot see it

#[path = "conformance/abandon.rs"]
mod abandon;
#[path = "conformance/arms.rs"]
mod arms;
#[path = "conformance/buffers.rs"]
mod buffers;
#[path = "conformance/cancel.rs"]
mod cancel;
#[path = "conformance/connection.rs"]
mod connection;
#[path = "conformance/guest.rs"]
mod guest;
#[path = "conformance/kit.rs"]
mod kit;
#[path = "conformance/large.rs"]
mod large;
#[path = "conformance/life.rs"]
mod life;
#[path = "conformance/ready.rs"]
mod ready;
#[path = "conformance/watch.rs"]
mod watch;

/// Makes one test of each case and each driver, such as `accept_gives_a_connection::simulation`.
macro_rules! conformance {
    ($($subject:ident { $($case:ident,)+ })+) => {
        $($(
            mod $case {
                #[test]
                fn simulation() {
                    crate::arms::simulation(crate::$subject::$case);
                }

                #[test]
                fn simulation_in_chaos() {
                    crate::arms::simulation_in_chaos(crate::$subject::$case);
                }

                #[test]
                #[cfg(target_os = "linux")]
                fn io_uring() {
                    crate::arms::io_uring(crate::$subject::$case);
                }

                #[test]
                fn polling() {
                    crate::arms::polling(crate::$subject::$case);
                }
            }
        )+)+
    };
}

conformance! {
    connection {
        receive_gives_what_was_sent,
        a_connection_is_made_before_it_is_accepted,
        under_linux_a_connection_has_the_options_of_its_listener,
        both_ends_agree_on_the_addresses,
        ipv6_works_like_ipv4,
        a_megabyte_arrives_in_order,
        the_end_of_file_is_zero_bytes_and_stays,
        half_close_leaves_the_other_half,
        send_waits_while_the_peer_does_not_read,
        both_directions_work_at_once,
        close_ends_the_receive_of_the_peer,
        a_reset_is_an_error,
        send_to_a_closed_peer_fails_in_the_end,
        connect_to_nobody_is_refused,
        an_address_is_listened_on_once,
        an_attempt_that_would_wait_says_so,
    }
    cancel {
        a_cancelled_receive_takes_nothing,
        a_cancel_in_the_turn_of_its_operation_works,
        a_cancelled_accept_takes_no_connection,
        a_cancelled_send_sends_nothing,
        a_cancelled_connect_ends,
        an_abandoned_connect_ends,
        success_wins_over_a_later_cancel,
        a_race_of_cancel_and_success_loses_nothing,
        a_race_for_a_connection_loses_nothing,
        a_second_cancel_does_nothing,
        a_cancel_of_what_has_ended_does_nothing,
        an_old_key_never_names_a_new_operation,
        a_cancel_spares_the_other_direction,
    }
    abandon {
        an_abandoned_receive_that_lost_takes_nothing,
        an_abandoned_receive_that_won_leaves_its_bytes,
        an_abandoned_receive_leaves_the_end_of_file,
        a_receive_abandoned_in_a_race_loses_nothing,
        an_abandoned_accept_that_lost_takes_nothing,
        an_abandoned_accept_that_won_leaves_its_connection,
        an_accept_abandoned_in_a_race_loses_nothing,
        an_operation_may_be_cancelled_and_then_abandoned,
        an_abandoned_send_ends,
        orphans_are_counted_by_direction,
        unreceived_bytes_come_first,
    }
    ready {
        readable_says_that_bytes_are_there_and_takes_none,
        readable_says_that_the_end_is_there,
        readable_says_that_a_connection_is_there,
        a_fresh_connection_is_writable,
        a_wait_for_readiness_can_be_cancelled,
    }
    watch {
        a_watch_tells_once_when_bytes_are_there,
        a_watch_without_a_look_misses_nothing,
        a_watch_tells_of_the_end_of_file,
        a_watch_that_was_taken_back_tells_nothing,
        a_watch_is_taken_back_by_its_place_and_its_token,
        a_watched_stream_can_be_closed,
        a_watched_listener_tells_of_each_connection,
        a_watched_listener_keeps_what_comes_later,
    }
    buffers {
        leases_do_not_block_receives,
        a_lease_outlives_its_driver,
        a_buffer_of_the_driver_can_be_sent,
        received_bytes_can_be_sent_on,
        an_idle_receive_needs_no_room_for_others,
    }
    large {
        large_messages_come_whole_and_in_order,
        messages_that_grow_and_shrink_stay_in_order,
        a_stream_comes_in_blocks_and_in_order_up_to_its_end,
        a_slice_goes_on_where_blocks_have_ended,
        a_stream_may_be_closed_in_the_middle,
    }
    life {
        more_operations_than_the_queue_holds_all_run,
        more_cancels_than_the_queue_holds_all_arrive,
        an_unparker_that_has_called_ends_the_next_wait,
        an_unparker_ends_a_wait_from_another_thread,
        a_wait_ends_when_its_time_is_over,
        a_poll_does_not_wait,
        drain_leaves_nothing_in_flight,
        a_driver_may_be_dropped_with_operations_in_flight,
        an_operation_keeps_its_descriptor_open,
        a_key_may_be_forgotten,
        statistics_count_what_was_done,
    }
    guest {
        a_wait_elsewhere_ends_when_an_operation_does,
        an_unparker_ends_a_wait_elsewhere,
        an_unparker_that_has_called_is_not_slept_over_elsewhere,
        a_wait_elsewhere_ends_when_its_time_is_over,
        polls_and_waits_elsewhere_do_everything,
        a_wait_elsewhere_may_be_ended_again_and_without_a_begin,
        a_waiter_outlives_its_driver,
    }
}
