// SPDX-License-Identifier: Apache-2.0

// Command isthmus-hub is the controller that runs in the hub. It only wires; what it does is in controllers and
// federation.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	coordinationv1 "k8s.io/api/coordination/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	crmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers"
	"isthmus.dev/isthmus/controllers/fleet"
	"isthmus.dev/isthmus/controllers/prometheus"
	"isthmus.dev/isthmus/federation"
)

// leaseName is the leader's lease in the hub's namespace of Isthmus.
const leaseName = "isthmus-hub"

// flags of the command, with their defaults.
type flags struct {
	metricsAddress, healthAddress string
	leaderElect                   bool
	memberQPS                     float32
	memberBurst                   int
	memberTimeout                 time.Duration
	probeInterval                 time.Duration
	maxSuspected                  int
	prometheusURL                 string
	prometheusSecret              string
}

func main() {
	var f flags
	cmd := &cobra.Command{
		Use:   "isthmus-hub",
		Short: "The federation controller: declares routes once, in the hub, and programs them in every member",
		Args:  cobra.NoArgs,
		// Errors are printed once, here; usage only helps who typed a flag wrong.
		SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), f) },
	}
	cmd.Flags().StringVar(&f.metricsAddress, "metrics-address", ":8080", "address of the Prometheus metrics; 0 serves none")
	cmd.Flags().StringVar(&f.healthAddress, "health-address", ":8081", "address of /healthz and /readyz; 0 serves none")
	cmd.Flags().BoolVar(&f.leaderElect, "leader-elect", true, "let one of several replicas lead; only the leader writes")
	cmd.Flags().Float32Var(&f.memberQPS, "member-qps", 200, "requests a second to one member")
	cmd.Flags().IntVar(&f.memberBurst, "member-burst", 400, "requests to one member at once")
	cmd.Flags().DurationVar(&f.memberTimeout, "member-timeout", 5*time.Second, "time limit of one request to a member")
	cmd.Flags().DurationVar(&f.probeInterval, "probe-interval", 2*time.Second, "time between two probes of a member's API server")
	cmd.Flags().IntVar(&f.maxSuspected, "max-suspected", federation.DefaultMaxSuspected,
		"percent of the clusters that may be taken out on the word of probes, over the fleet and of each service; the last one never is")
	cmd.Flags().StringVar(&f.prometheusURL, "prometheus-url", "",
		"Prometheus (or Thanos) that is asked for the metrics of members that name none of their own in spec.prometheus")
	cmd.Flags().StringVar(&f.prometheusSecret, "prometheus-secret", "",
		"Secret in "+v1alpha1.SystemNamespace+" with the credentials for it: token, or username and password, and ca.crt")
	cmd.Flags().AddGoFlagSet(flag.CommandLine)
	if err := cmd.ExecuteContext(ctrl.SetupSignalHandler()); err != nil {
		fmt.Fprintln(os.Stderr, "isthmus-hub: "+err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context, f flags) error {
	if f.maxSuspected < 1 || f.maxSuspected > 100 {
		return fmt.Errorf("--max-suspected is %d: give a share from 1 to 100 percent", f.maxSuspected)
	}
	metrics, err := f.prometheus()
	if err != nil {
		return err
	}
	ctrl.SetLogger(zap.New(zap.UseDevMode(false)))
	cfg, err := config.GetConfig()
	if err != nil {
		return fmt.Errorf("no way to the hub's API server: run in a cluster, or set KUBECONFIG or --kubeconfig: %w", err)
	}
	// The hub's own API server limits by priority and fairness; a limit of five a second here would only delay.
	cfg.QPS, cfg.Burst = 200, 400
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme:                  controllers.NewScheme(),
		Cache:                   controllers.HubCache(),
		Metrics:                 metricsserver.Options{BindAddress: f.metricsAddress},
		HealthProbeBindAddress:  f.healthAddress,
		LeaderElection:          f.leaderElect,
		LeaderElectionID:        leaseName,
		LeaderElectionNamespace: v1alpha1.SystemNamespace,
		// A clean stop hands over at once; it is safe because nothing runs after the manager has stopped.
		LeaderElectionReleaseOnCancel: true,
	})
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	var epoch atomic.Int64
	err = controllers.Setup(ctx, mgr, controllers.Options{
		Registerer:   crmetrics.Registry,
		MaxSuspected: f.maxSuspected,
		Prometheus:   metrics,
		Prepare: func(ctx context.Context) error {
			if !f.leaderElect {
				return nil
			}
			return readEpoch(ctx, mgr.GetAPIReader(), &epoch)
		},
		Fleet: fleet.Options{QPS: f.memberQPS, Burst: f.memberBurst, RequestTimeout: f.memberTimeout,
			ProbeInterval: f.probeInterval, Epoch: epoch.Load, Log: ctrl.Log.WithName("fleet")},
	})
	if err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	if err := addChecks(mgr); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

// prometheus is the one for members that name none; nil where there is none.
func (f flags) prometheus() (*v1alpha1.Prometheus, error) {
	if f.prometheusURL == "" {
		if f.prometheusSecret != "" {
			return nil, errors.New("--prometheus-secret is given and --prometheus-url is not: give both, or neither")
		}
		return nil, nil
	}
	p := &v1alpha1.Prometheus{URL: f.prometheusURL}
	if f.prometheusSecret != "" {
		p.SecretRef = &v1alpha1.SecretRef{Name: f.prometheusSecret}
	}
	if err := prometheus.Validate(*p); err != nil {
		return nil, fmt.Errorf("--prometheus-url: %w", err)
	}
	return p, nil
}

// readEpoch takes the number of times that the lease changed hands: it rises with every new leader, and stays
// with one that keeps its lease.
func readEpoch(ctx context.Context, reader client.Reader, epoch *atomic.Int64) error {
	var lease coordinationv1.Lease
	if err := reader.Get(ctx, client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: leaseName}, &lease); err != nil {
		return fmt.Errorf("read the leader's lease: %w", err)
	}
	if lease.Spec.LeaseTransitions != nil {
		epoch.Store(int64(*lease.Spec.LeaseTransitions))
	}
	return nil
}

func addChecks(mgr ctrl.Manager) error {
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return err
	}
	return mgr.AddReadyzCheck("ping", healthz.Ping)
}
