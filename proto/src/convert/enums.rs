//! Closed sets of names: those of the model beside those of the wire (`wire`) and of the store (`stored`). Each
//! pair is written once, and a name that is missing on one side does not compile. Knows no message.

/// A module with `number`, what stands for a value in a message, and `read`, the value that a number stands
/// for: `None` when it is unspecified or not known.
macro_rules! pairs {
    ($name:ident: $model:ty = $message:ty { $($variant:ident,)+ }) => {
        pub(crate) mod $name {
            pub(crate) fn number(value: $model) -> i32 {
                let message = match value {
                    $(<$model>::$variant => <$message>::$variant,)+
                };
                message.into()
            }

            #[allow(dead_code, reason = "the wire has sets that are only told, never asked for")]
            pub(crate) fn read(number: i32) -> Option<$model> {
                match <$message>::try_from(number) {
                    $(Ok(<$message>::$variant) => Some(<$model>::$variant),)+
                    Ok(<$message>::Unspecified) | Err(_) => None,
                }
            }
        }
    };
}

/// The sets that both the wire and the store have.
macro_rules! pairs_of {
    (
        $package:ident, $run_state:ty, $trigger_kind:ty, $exit_class:ty, $interval_from:ty, $guard_kind:ty,
        $marker_kind:ty
    ) => {
        pairs!(role: fleet::attempt::Role = crate::$package::Role {
            Origin,
            Replica,
        });

        pairs!(run_state: fleet::run::RunState = $run_state {
            Queued,
            Running,
            Propagating,
            Succeeded,
            Failed,
            Held,
            Cancelled,
        });

        pairs!(trigger_kind: fleet::run::TriggerKind = $trigger_kind {
            Schedule,
            User,
            Push,
            UpstreamChange,
            Project,
        });

        pairs!(exit_class: fleet::outcome::ExitClass = $exit_class {
            Ok,
            Partial,
            MaxDelete,
            Busy,
            Auth,
            NotFound,
            Refused,
            DiskFull,
            LocalIo,
            Internal,
            Timeout,
            Stalled,
            WallClock,
            Network,
            Protocol,
            Cancelled,
            Config,
            RejectedByAgent,
            Interrupted,
            Guard,
            UpstreamBehind,
        });

        pairs!(guard_kind: fleet::outcome::GuardKind = $guard_kind {
            Deletes,
            EmptyUpstream,
            SentinelMissing,
            Shrink,
            Adoption,
            Quota,
            UpstreamBehind,
        });

        pairs!(marker_kind: fleet::marker::MarkerKind = $marker_kind {
            UnixTime,
            HttpDate,
            IsoDate,
            DebianRelease,
            DebianTrace,
            ManjaroState,
            Repomd,
            Mtime,
        });

        pairs!(interval_from: fleet::schedule::IntervalFrom = $interval_from {
            Start,
            End,
        });

        pairs!(named_cadence: fleet::schedule::Named = crate::$package::NamedCadence {
            Hourly,
            Daily,
            Weekly,
            Monthly,
            Yearly,
        });

        pairs!(overlap_policy: fleet::schedule::OverlapPolicy = crate::$package::OverlapPolicy {
            BufferOne,
            Skip,
        });

        pairs!(dst_overlap: fleet::schedule::DstOverlap = crate::$package::DstOverlap {
            Once,
            Both,
        });
    };
}

/// The numbers of `mirror.v1`.
pub(crate) mod wire {
    pairs_of!(
        v1,
        crate::v1::run::State,
        crate::v1::trigger::Kind,
        crate::v1::outcome::Class,
        crate::v1::interval::From,
        crate::v1::evidence::Kind,
        crate::v1::marker::Kind
    );

    pairs!(wait_reason: fleet::engine::WaitReason = crate::v1::wait::Reason {
        Paused,
        Frozen,
        RunActive,
        AgentAway,
        AgentDraining,
        AgentSlots,
        VolumeSlots,
        FirstSync,
        UpstreamSlots,
        UpstreamSpacing,
        Backoff,
        DestinationBusy,
        OriginUplink,
        OriginAway,
        OriginNotServing,
        ReplicasPulling,
        MaxParallel,
        NoSuchRoot,
        UpstreamBreaker,
        OutsideWindow,
        DiskSpace,
        Archived,
    });

    pairs!(user_role: fleet::agent::UserRole = crate::v1::UserRole {
        Viewer,
        Owner,
        Operator,
        Admin,
    });
}

/// The numbers of `mirror.store.v1`.
pub(crate) mod stored {
    pairs_of!(
        store,
        crate::store::RunState,
        crate::store::TriggerKind,
        crate::store::ExitClass,
        crate::store::IntervalFrom,
        crate::store::GuardKind,
        crate::store::MarkerKind
    );

    pairs!(user_role: fleet::agent::UserRole = crate::store::UserRole {
        Viewer,
        Owner,
        Operator,
        Admin,
    });

    pairs!(deed: fleet::plan::Deed = crate::store::Deed {
        Create,
        Change,
        Delete,
    });
}

#[cfg(test)]
mod tests {
    use super::{stored, wire};

    /// Every number from 1 to `count` stands for one value, and that value for this number; no other does.
    fn paired<T>(count: i32, read: fn(i32) -> Option<T>, number: fn(T) -> i32) {
        for n in 1..=count {
            assert_eq!(read(n).map(number), Some(n));
        }
        assert!(read(0).is_none() && read(count + 1).is_none() && read(-1).is_none());
    }

    #[test]
    fn every_value_has_one_number_on_the_wire() {
        paired(2, wire::role::read, wire::role::number);
        paired(7, wire::run_state::read, wire::run_state::number);
        paired(5, wire::trigger_kind::read, wire::trigger_kind::number);
        paired(21, wire::exit_class::read, wire::exit_class::number);
        paired(7, wire::guard_kind::read, wire::guard_kind::number);
        paired(8, wire::marker_kind::read, wire::marker_kind::number);
        paired(2, wire::interval_from::read, wire::interval_from::number);
        paired(5, wire::named_cadence::read, wire::named_cadence::number);
        paired(2, wire::overlap_policy::read, wire::overlap_policy::number);
        paired(2, wire::dst_overlap::read, wire::dst_overlap::number);
        paired(22, wire::wait_reason::read, wire::wait_reason::number);
    }

    #[test]
    fn every_value_has_one_number_in_the_store() {
        paired(2, stored::role::read, stored::role::number);
        paired(7, stored::run_state::read, stored::run_state::number);
        paired(5, stored::trigger_kind::read, stored::trigger_kind::number);
        paired(21, stored::exit_class::read, stored::exit_class::number);
        paired(7, stored::guard_kind::read, stored::guard_kind::number);
        paired(8, stored::marker_kind::read, stored::marker_kind::number);
        paired(2, stored::interval_from::read, stored::interval_from::number);
        paired(5, stored::named_cadence::read, stored::named_cadence::number);
        paired(2, stored::overlap_policy::read, stored::overlap_policy::number);
        paired(2, stored::dst_overlap::read, stored::dst_overlap::number);
        paired(4, stored::user_role::read, stored::user_role::number);
    }
}
