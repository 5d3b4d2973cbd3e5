// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// Names by which Isthmus marks and finds what it wrote. They are part of the API: changing one orphans objects.
const (
	// ControllerName is the GatewayClass controllerName that Isthmus answers to, and the name under which it
	// reports in route and policy status.
	ControllerName = "isthmus.dev/federation-controller"
	// FieldOwner is the field manager of every write to a member.
	FieldOwner = "isthmus"
	// SystemNamespace holds what belongs to Isthmus itself, in the hub and in each member.
	SystemNamespace = "isthmus-system"

	// LabelManagedBy marks each object that Isthmus wrote in a member. An object without it is never changed.
	LabelManagedBy = "app.kubernetes.io/managed-by"
	// ManagedBy is the value of LabelManagedBy.
	ManagedBy = "isthmus"
	// LabelOwner is the key of the hub object for which a member's object was written:
	// "<noun>.<hash of namespace/name>". Pruning selects by it.
	LabelOwner = "isthmus.dev/owner"
	// LabelCluster names the member cluster that an endpoint or a backend stands for.
	LabelCluster = "isthmus.dev/cluster"
	// LabelMember finds the RoutePlans of a member.
	LabelMember = "isthmus.dev/member"

	// LabelAlertWebhook marks a Secret of SystemNamespace in the hub as a web hook that is told of alerts; any value.
	LabelAlertWebhook = "isthmus.dev/alert-webhook"

	// AnnotationOwner is the readable form of LabelOwner: "<noun>/<namespace>/<name>".
	AnnotationOwner = "isthmus.dev/owner"
	// AnnotationPlan is the hash of what was last written, so that an unchanged plan writes nothing.
	AnnotationPlan = "isthmus.dev/plan"
	// AnnotationEpoch is the epoch of the leader that wrote the object. A member refuses a lower one.
	AnnotationEpoch = "isthmus.dev/epoch"

	// AnnotationResolveServices on a hub route says what its references to Services mean. ResolveImports, its only value: the
	// ServiceImports of the same namespace, name and port. Without it: the Service of that name in the cluster that a request entered.
	AnnotationResolveServices = "isthmus.dev/resolve-services"
	// ResolveImports is the value of AnnotationResolveServices.
	ResolveImports = "imports"

	// FinalizerRollout keeps a deleted TrafficRollout while requests would go back to its old side without it.
	FinalizerRollout = "isthmus.dev/rollout"
	// FinalizerMember keeps a MemberCluster until its contribution has been withdrawn.
	FinalizerMember = "isthmus.dev/member"
)

// Verbs of a TrafficRollout: annotations, each acted on once for each new value.
const (
	VerbPromote      = "rollout.isthmus.dev/promote"
	VerbPromoteFull  = "rollout.isthmus.dev/promote-full"
	VerbPause        = "rollout.isthmus.dev/pause"
	VerbResume       = "rollout.isthmus.dev/resume"
	VerbAbort        = "rollout.isthmus.dev/abort"
	VerbRetry        = "rollout.isthmus.dev/retry"
	VerbSkipAnalysis = "rollout.isthmus.dev/skip-analysis"
)
