// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"isthmus.dev/isthmus/test/lab/state"
)

// place is where a cluster lies.
type place struct{ region, zone string }

// provider is what the nodes of one cloud look like from the API: what controllers and people select,
// group and find them by.
type provider struct {
	name string
	// regions in the order in which the provider's clusters take them, each with its zones.
	regions []region
	// identity returns a node's name and its provider ID, labels what the cloud puts on it besides.
	identity func(state.Cluster) (name, providerID string)
	labels   func(state.Cluster) map[string]string
}

type region struct {
	name  string
	zones []string
}

const instanceType = "node.kubernetes.io/instance-type"

// providers that the lab can look like. A cluster is of the one whose name begins its own.
var providers = []provider{
	{
		name: "eks",
		regions: []region{
			{"us-east-1", []string{"us-east-1a", "us-east-1b", "us-east-1c"}},
			{"us-west-2", []string{"us-west-2b", "us-west-2a", "us-west-2c"}},
			{"eu-central-1", []string{"eu-central-1a", "eu-central-1b", "eu-central-1c"}},
			{"ap-southeast-1", []string{"ap-southeast-1a", "ap-southeast-1b", "ap-southeast-1c"}},
		},
		identity: eksIdentity,
		labels: func(state.Cluster) map[string]string {
			return map[string]string{
				instanceType: "m5.large", "eks.amazonaws.com/nodegroup": "default", "eks.amazonaws.com/capacityType": "ON_DEMAND",
			}
		},
	},
	{
		name: "gke",
		regions: []region{
			{"europe-west1", []string{"europe-west1-b", "europe-west1-c", "europe-west1-d"}},
			{"us-central1", []string{"us-central1-c", "us-central1-a", "us-central1-b"}},
			{"asia-east1", []string{"asia-east1-a", "asia-east1-b", "asia-east1-c"}},
			{"southamerica-east1", []string{"southamerica-east1-a", "southamerica-east1-b", "southamerica-east1-c"}},
		},
		identity: gkeIdentity,
		labels: func(state.Cluster) map[string]string {
			return map[string]string{
				instanceType: "e2-standard-4", "cloud.google.com/gke-nodepool": "default-pool", "cloud.google.com/gke-os-distribution": "cos",
			}
		},
	},
	{
		name: "aks",
		// Azure names a zone by its region and a number.
		regions: []region{
			{"eastus", []string{"eastus-1", "eastus-2", "eastus-3"}},
			{"westeurope", []string{"westeurope-1", "westeurope-2", "westeurope-3"}},
			{"southeastasia", []string{"southeastasia-1", "southeastasia-2", "southeastasia-3"}},
			{"brazilsouth", []string{"brazilsouth-1", "brazilsouth-2", "brazilsouth-3"}},
		},
		identity: aksIdentity,
		labels: func(c state.Cluster) map[string]string {
			return map[string]string{
				instanceType: "Standard_D4s_v5", "kubernetes.azure.com/agentpool": "nodepool1",
				"kubernetes.azure.com/mode": "system", "kubernetes.azure.com/cluster": aksResourceGroup(c),
			}
		},
	},
}

// providerOf tells a cluster's provider from its name; nil is a plain cluster, in no place.
func providerOf(name string) *provider {
	for i, p := range providers {
		if strings.HasPrefix(name, p.name) {
			return &providers[i]
		}
	}
	return nil
}

// place of the provider's nth cluster: first each region once, then the next zone of each.
func (p *provider) place(n int) place {
	r := p.regions[n%len(p.regions)]
	return place{region: r.name, zone: r.zones[n/len(p.regions)%len(r.zones)]}
}

// nodeIdentity names a cluster's node, its provider ID and its labels as the cloud would.
func nodeIdentity(c state.Cluster) (name, providerID string, labels map[string]string) {
	for _, p := range providers {
		if p.name == c.Provider {
			name, providerID = p.identity(c)
			return name, providerID, p.labels(c)
		}
	}
	return c.Name + "-node", "", nil
}

func eksIdentity(c state.Cluster) (name, providerID string) {
	domain := c.Region + ".compute.internal"
	if c.Region == "us-east-1" {
		domain = "ec2.internal" // the first region has kept its first name
	}
	return "ip-" + strings.ReplaceAll(c.NodeIP, ".", "-") + "." + domain, fmt.Sprintf("aws:///%s/i-%s", c.Zone, digest(c.Name)[:17])
}

func gkeIdentity(c state.Cluster) (name, providerID string) {
	name = fmt.Sprintf("gke-%s-default-pool-%s-0000", c.Name, digest(c.Name)[:8])
	return name, fmt.Sprintf("gce://isthmus-lab/%s/%s", c.Zone, name)
}

func aksIdentity(c state.Cluster) (name, providerID string) {
	set := "aks-nodepool1-" + digest(c.Name)[:8] + "-vmss"
	return set + "000000", fmt.Sprintf("azure:///subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/%s"+
		"/providers/Microsoft.Compute/virtualMachineScaleSets/%s/virtualMachines/0", aksResourceGroup(c), set)
}

func aksResourceGroup(c state.Cluster) string { return "mc_isthmus-lab_" + c.Name + "_" + c.Region }

// digest is what the lab has instead of a cloud's random IDs: hexadecimal, the same for the same name.
func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
