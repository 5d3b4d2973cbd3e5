// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// Every condition type and reason of Isthmus's own is here; those of the Gateway API and of the
// Multi-Cluster Services API are used under their upstream names.

// Condition types of a MemberCluster.
const (
	// MemberConnected is True while the member's API server answers with the given credentials.
	MemberConnected = "Connected"
	// MemberSynced is True once the caches of the member have been filled. While it is not True nothing is
	// withdrawn on the member's behalf.
	MemberSynced = "Synced"
	// MemberMeshReady is True when the member's east-west gateway is programmed and has an address.
	MemberMeshReady = "MeshReady"
)

// Reasons of a MemberCluster's conditions.
const (
	ReasonConnected          = "Connected"
	ReasonConnecting         = "Connecting"
	ReasonSecretNotFound     = "SecretNotFound"
	ReasonInvalidKubeconfig  = "InvalidKubeconfig"
	ReasonUnsafeKubeconfig   = "UnsafeKubeconfig"
	ReasonUnreachable        = "Unreachable"
	ReasonUnauthorized       = "Unauthorized"
	ReasonForbidden          = "Forbidden"
	ReasonDuplicateCluster   = "DuplicateCluster"
	ReasonSynced             = "Synced"
	ReasonSyncing            = "Syncing"
	ReasonMissingKinds       = "MissingKinds"
	ReasonMeshReady          = "MeshReady"
	ReasonNamespaceMissing   = "NamespaceMissing"
	ReasonNoRetries          = "NoRetries"
	ReasonGatewayPending     = "GatewayPending"
	ReasonWriteFailed        = "WriteFailed"
	ReasonUnknownMemberState = "NotConnected"
	ReasonCleanupPending     = "CleanupPending"
)

// Condition types and reasons of a TrafficDistributionPolicy, beside the upstream Accepted.
const (
	// PolicyClustersResolved is False while the policy names a cluster that is not a MemberCluster.
	PolicyClustersResolved = "ClustersResolved"
	ReasonClustersResolved = "ClustersResolved"
	ReasonUnknownCluster   = "UnknownCluster"

	// PolicyMetricAnswered is True while the queries of the policy's metric are answered. It is absent where it has none.
	PolicyMetricAnswered = "MetricAnswered"
	ReasonMetricAnswered = "MetricAnswered"
	ReasonMetricAwaited  = "MetricAwaited"
	ReasonNoPrometheus   = "NoPrometheus"
	ReasonQueryFailed    = "QueryFailed"
)

// Condition types of a TrafficOverride.
const (
	// ConditionAccepted is True when everything that the override names is there.
	ConditionAccepted = "Accepted"
	// OverrideInForce is True while the override decides something.
	OverrideInForce = "InForce"
	// OverrideDrained is True, of a drain, when no route in any member sends anything to the cluster and every member
	// has confirmed it.
	OverrideDrained = "Drained"
)

// Reasons of a TrafficOverride's conditions.
const (
	ReasonAccepted       = "Accepted"
	ReasonTargetNotFound = "TargetNotFound"
	ReasonInForce        = "InForce"
	ReasonExpired        = "Expired"
	ReasonConflicted     = "Conflicted"
	ReasonNotInForce     = "NotInForce"
	ReasonDraining       = "Draining"
	ReasonSettling       = "Settling"
	ReasonDrainBlocked   = "DrainBlocked"
	ReasonDrained        = "Drained"
	// ReasonEnded is of the alert that a Freeze or Hold in force was deleted.
	ReasonEnded = "Ended"
)

// Condition types of a hub route's parent status, beside the upstream Accepted and ResolvedRefs.
const (
	// RouteProgrammed is True when every member has accepted the newest plan of the route.
	RouteProgrammed = "Programmed"
	// RouteTrafficShifted is True while some share of the route is not where its intent says, and says why.
	RouteTrafficShifted = "TrafficShifted"
	// RouteProbed is True while what the probes and metrics of the route's imports see is believed. It is absent where there is
	// neither.
	RouteProbed = "Probed"
)

// Reasons of a hub route's and a RoutePlan's conditions.
const (
	ReasonProgrammed          = "Programmed"
	ReasonPending             = "Pending"
	ReasonMemberRefused       = "MemberRefused"
	ReasonAsIntended          = "AsIntended"
	ReasonFailedOver          = "FailedOver"
	ReasonNoFitCluster        = "NoFitCluster"
	ReasonOverridden          = "Overridden"
	ReasonDegraded            = "Degraded"
	ReasonFailingBack         = "FailingBack"
	ReasonAwaitingFailback    = "AwaitingFailback"
	ReasonCapacityExceeded    = "CapacityExceeded"
	ReasonProbed              = "Probed"
	ReasonProbeAwaited        = "ProbeAwaited"
	ReasonProbeMisconfigured  = "ProbeMisconfigured"
	ReasonMetricIllEverywhere = "MetricIllEverywhere"
	ReasonHubLinkBad          = "HubLinkBad"
	ReasonNoPeerToAsk         = "NoPeerToAsk"
	ReasonGuardHolds          = "GuardHolds"
	ReasonImportNotFound      = "BackendNotFound"
	ReasonForeignObject       = "ForeignObject"
	ReasonMemberUnreachable   = "MemberUnreachable"
	ReasonUnsupported         = "Unsupported"
	ReasonTooManyBackends     = "TooManyBackends"
	ReasonNoMembers           = "NoMembers"
	ReasonNotAccepted         = "NotAccepted"
)

// Reasons of concerns that `isthmus plan` names, beside those of conditions and weights.
const (
	// ReasonProbeMissing is of a cluster that would be lost and keeps its share, because nothing looks at it.
	ReasonProbeMissing = "ProbeMissing"
	// ReasonClientsEnter is of a Gateway that would go on to name an address of a cluster that is lost.
	ReasonClientsEnter = "ClientsEnter"
)

// ReasonClassNotFound is on a hub Gateway that is served and whose GatewayClass is gone.
const ReasonClassNotFound = "GatewayClassNotFound"

// Reasons of Events on the Secret of a web hook.
const (
	ReasonWebhookReady     = "WebhookReady"
	ReasonWebhookInvalid   = "WebhookInvalid"
	ReasonWebhookFailed    = "WebhookFailed"
	ReasonWebhookDelivered = "WebhookDelivered"
)

// Condition types of a TrafficRollout.
const (
	// RolloutAccepted is True while the rollout can run. While it is not, the traffic stays where it is.
	RolloutAccepted = "Accepted"
	// RolloutInProgress is True while a step is being taken, False once it is complete or aborted, or its deadline has passed, Unknown
	// while it waits for a time or a person.
	RolloutInProgress = "Progressing"
	// RolloutCompleted is True when everything is at the new side.
	RolloutCompleted = "Completed"
)

// Reasons of a TrafficRollout's conditions and Events, beside its phases.
const (
	ReasonInvalid     = "Invalid"
	ReasonAborted     = "Aborted"
	ReasonNothingToDo = "NothingToDo"
)

// Reasons of alerts about a TrafficRollout.
const (
	ReasonRolloutAborted   = "RolloutAborted"
	ReasonRolloutLate      = "RolloutLate"
	ReasonRolloutWaits     = "RolloutWaits"
	ReasonRolloutCompleted = "RolloutCompleted"
)

// Condition types of a RoutePlan.
const (
	// PlanWritten is True when the member holds the object as planned.
	PlanWritten = "Written"
	// PlanProgrammed is True when the member's own controller has accepted that object.
	PlanProgrammed = "Programmed"
)

// Reasons of Events on a route of which the split in a member changed, beside FailedOver.
const (
	ShiftDrained        = "Drained"
	ShiftUndrained      = "Undrained"
	ShiftDegraded       = "Degraded"
	ShiftFailedBack     = "FailedBack"
	ShiftReturning      = "Returning"
	ShiftWeightsChanged = "WeightsChanged"
)

// Reasons of a single weight in a RoutePlan. They are the vocabulary of "why does this cluster get this share".
const (
	WeightByPolicy    = "Policy"     // the policy's weight, re-normalised over the fit clusters
	WeightLocal       = "Local"      // the cluster that the request entered
	WeightSameZone    = "SameZone"   // the nearest fit cluster: same zone
	WeightSameRegion  = "SameRegion" // the nearest fit cluster: same region
	WeightAnywhere    = "Anywhere"   // no nearer cluster is fit
	WeightStandby     = "Standby"    // fit, listed at weight 0 so that an emergency is one write
	WeightUnfit       = "Unfit"      // at weight 0 because the verdict is Unfit
	WeightSuspected   = "Suspected"  // at weight 0 because its probes fail from two sides, or its metric is ill
	WeightHeld        = "Held"       // the last good split, kept because no cluster is fit
	WeightResolving   = "Resolving"  // new in the member: weight follows once the member has resolved it
	WeightKept        = "Kept"       // as before, until the backend to which the route, or a rollout, moves it can serve
	WeightWithdrawing = "Withdrawn"  // no longer exported: at 0 until the member has confirmed it
	WeightNotListed   = "NotListed"  // the policy gives this cluster no share
	WeightByRoute     = "Route"      // the route itself gives the whole backend weight 0

	WeightDegraded  = "Degraded"         // less than its part, because only a part of its endpoints is ready
	WeightHolding   = "Holding"          // fit again, and waits for its hold to end before it takes more
	WeightAwaiting  = "AwaitingFailback" // at 0 and fit again: its policy leaves its return to a person
	WeightReturning = "Returning"        // fit again, and is given its part step by step
	WeightOver      = "CapacityExceeded" // more than its capacity, because no other cluster can carry it

	// By a TrafficRollout, which the message names.
	WeightByRollout = "Rollout" // its percentage of what the cluster would serve of the old side

	// By a person's word, a TrafficOverride, which the message names.
	WeightDrained      = "Drained"      // at 0 because the cluster is drained
	WeightDrainBlocked = "DrainBlocked" // its share in spite of a drain, because no other cluster is fit
	WeightOnHold       = "OnHold"       // as last decided, because the route is held
	WeightFrozen       = "Frozen"       // as last decided, because everything is frozen
	WeightPinned       = "Pinned"       // the pin's weight
)
