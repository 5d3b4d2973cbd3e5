// SPDX-License-Identifier: Apache-2.0

// Command gatewayapi-plugin stands in for the Gateway API plugin of Argo Rollouts in tests, since no module proxy has it: a stock
// controller starts it, and it writes what that plugin writes. It takes the cluster of the route from KUBECONFIG.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/argoproj/argo-rollouts/pkg/apis/rollouts/v1alpha1"
	"github.com/argoproj/argo-rollouts/rollout/trafficrouting/plugin/rpc"
	"github.com/argoproj/argo-rollouts/utils/plugin/types"
	goplugin "github.com/hashicorp/go-plugin"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	name    = "argoproj-labs/gatewayAPI"
	label   = "rollouts.argoproj.io/gatewayapi-canary"
	manager = "gatewayAPI"
)

func main() {
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: goplugin.HandshakeConfig{ProtocolVersion: 1, MagicCookieKey: "ARGO_ROLLOUTS_RPC_PLUGIN", MagicCookieValue: "trafficrouter"},
		Plugins:         map[string]goplugin.Plugin{"RpcTrafficRouterPlugin": &rpc.RpcTrafficRouterPlugin{Impl: &router{}}},
	})
}

// router answers the controller's calls.
type router struct {
	routes dynamic.NamespaceableResourceInterface
}

func (r *router) InitPlugin() types.RpcError {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return failed(err)
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return failed(err)
	}
	r.routes = client.Resource(schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"})
	return types.RpcError{}
}

func (r *router) Type() string { return name }

func (r *router) UpdateHash(*v1alpha1.Rollout, string, string, []v1alpha1.WeightDestination) types.RpcError {
	return types.RpcError{}
}

func (r *router) SetMirrorRoute(*v1alpha1.Rollout, *v1alpha1.SetMirrorRoute) types.RpcError {
	return types.RpcError{}
}

// VerifyWeight always agrees.
func (r *router) VerifyWeight(*v1alpha1.Rollout, int32, []v1alpha1.WeightDestination) (types.RpcVerified, types.RpcError) {
	return types.Verified, types.RpcError{}
}

// SetWeight sets the two weights by name in each rule that has both, and those of experiments, which it appends.
func (r *router) SetWeight(ro *v1alpha1.Rollout, percent int32, experiments []v1alpha1.WeightDestination) types.RpcError {
	canary := ro.Spec.Strategy.Canary
	stable := int64(100 - percent)
	for _, e := range experiments {
		stable -= int64(e.Weight)
	}
	return r.update(ro, func(route *unstructured.Unstructured, rules []any) []any {
		for _, rule := range rules {
			old, next := find(rule, canary.StableService), find(rule, canary.CanaryService)
			if old == nil || next == nil {
				continue
			}
			old["weight"], next["weight"] = stable, int64(percent)
			for _, e := range experiments {
				add(rule, e, next["port"])
			}
		}
		labels := route.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		if delete(labels, label); percent > 0 {
			labels[label] = "in-progress"
		}
		route.SetLabels(labels)
		return rules
	})
}

// SetHeaderRoute adds a rule with a plain Service, or takes it out where nothing is to match.
func (r *router) SetHeaderRoute(ro *v1alpha1.Rollout, set *v1alpha1.SetHeaderRoute) types.RpcError {
	canary := ro.Spec.Strategy.Canary
	return r.update(ro, func(_ *unstructured.Unstructured, rules []any) []any {
		rules = withoutManaged(rules, canary)
		var headers []any
		for _, m := range set.Match {
			headers = append(headers, map[string]any{"type": "Exact", "name": m.HeaderName, "value": m.HeaderValue.Exact})
		}
		if len(headers) == 0 || len(rules) == 0 {
			return rules
		}
		return append(rules, map[string]any{
			"matches":     []any{map[string]any{"headers": headers}},
			"backendRefs": []any{map[string]any{"group": "", "kind": "Service", "name": canary.CanaryService, "port": find(rules[0], canary.CanaryService)["port"]}},
		})
	})
}

func (r *router) RemoveManagedRoutes(ro *v1alpha1.Rollout) types.RpcError {
	return r.update(ro, func(_ *unstructured.Unstructured, rules []any) []any {
		return withoutManaged(rules, ro.Spec.Strategy.Canary)
	})
}

// withoutManaged are the rules that name both Services.
func withoutManaged(rules []any, canary *v1alpha1.CanaryStrategy) []any {
	var kept []any
	for _, rule := range rules {
		if find(rule, canary.StableService) != nil && find(rule, canary.CanaryService) != nil {
			kept = append(kept, rule)
		}
	}
	return kept
}

// find is the backend of a rule by its name, whatever its kind; nil where there is none.
func find(rule any, name string) map[string]any {
	refs, _, _ := unstructured.NestedSlice(rule.(map[string]any), "backendRefs")
	for i := range refs {
		if refs[i].(map[string]any)["name"] == name {
			return rule.(map[string]any)["backendRefs"].([]any)[i].(map[string]any)
		}
	}
	return nil
}

func add(rule any, e v1alpha1.WeightDestination, port any) {
	if have := find(rule, e.ServiceName); have != nil {
		have["weight"] = int64(e.Weight)
		return
	}
	of := rule.(map[string]any)
	of["backendRefs"] = append(of["backendRefs"].([]any), map[string]any{"group": "", "kind": "Service", "name": e.ServiceName, "port": port, "weight": int64(e.Weight)})
}

// update changes each route that the Rollout names, and writes it back whole.
func (r *router) update(ro *v1alpha1.Rollout, change func(*unstructured.Unstructured, []any) []any) types.RpcError {
	var config struct {
		Namespace  string `json:"namespace"`
		HTTPRoute  string `json:"httpRoute"`
		HTTPRoutes []struct {
			Name string `json:"name"`
		} `json:"httpRoutes"`
	}
	if err := json.Unmarshal(ro.Spec.Strategy.Canary.TrafficRouting.Plugins[name], &config); err != nil {
		return failed(err)
	}
	names := []string{}
	if config.HTTPRoute != "" {
		names = append(names, config.HTTPRoute)
	}
	for _, route := range config.HTTPRoutes {
		names = append(names, route.Name)
	}
	for _, route := range names {
		if err := r.updateOne(config.Namespace, route, change); err != nil {
			return failed(fmt.Errorf("HTTPRoute %s/%s: %w", config.Namespace, route, err))
		}
	}
	return types.RpcError{}
}

func (r *router) updateOne(namespace, name string, change func(*unstructured.Unstructured, []any) []any) error {
	ctx := context.Background()
	route, err := r.routes.Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	rules, _, err := unstructured.NestedSlice(route.Object, "spec", "rules")
	if err != nil {
		return err
	}
	if err := unstructured.SetNestedSlice(route.Object, change(route, rules), "spec", "rules"); err != nil {
		return err
	}
	_, err = r.routes.Namespace(namespace).Update(ctx, route, metav1.UpdateOptions{FieldManager: manager})
	return err
}

func failed(err error) types.RpcError { return types.RpcError{ErrorString: err.Error()} }
