// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"context"
	"errors"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// ErrNone is that nobody is known who could be asked about a cluster.
var ErrNone = errors.New("no Prometheus is known for the cluster: set spec.prometheus of its MemberCluster, or --prometheus-url of isthmus-hub")

// ErrNoneOfAll is that nobody is known who could be asked about all clusters together.
var ErrNoneOfAll = errors.New("no Prometheus is known for all clusters: set --prometheus-url of isthmus-hub, or perCluster of the metric")

// Directory knows whom to ask about which cluster. It reads from caches, so that another address or Secret is in use at the
// next query, and keeps a client while nothing changed.
type Directory struct {
	reader   client.Reader
	fallback *v1alpha1.Prometheus

	mu      sync.Mutex
	clients map[place]kept
}

// place is an address and the Secret that goes with it. There are as many as were ever given to the process.
type place struct{ url, secret string }

// kept is a client, and the version of the Secret that it was made of.
type kept struct {
	version string
	client  *Client
}

// NewDirectory makes one that reads MemberClusters and Secrets, with a Prometheus for members that name none; nil where there
// is none for them.
func NewDirectory(reader client.Reader, fallback *v1alpha1.Prometheus) *Directory {
	return &Directory{reader: reader, fallback: fallback, clients: map[place]kept{}}
}

// Of a cluster, or of all where none is named: that is the hub's own. The error says what to set or to correct; it is ErrNone where
// there is nothing.
func (d *Directory) Of(ctx context.Context, cluster string) (*Client, error) {
	switch {
	case cluster == "" && d.fallback == nil:
		return nil, ErrNoneOfAll
	case cluster == "":
		return d.client(ctx, *d.fallback)
	}
	member := &v1alpha1.MemberCluster{}
	if err := d.reader.Get(ctx, client.ObjectKey{Name: cluster}, member); err != nil {
		return nil, fmt.Errorf("MemberCluster %s cannot be read: %s", cluster, apierrors.ReasonForError(err))
	}
	p := member.Spec.Prometheus
	if p == nil {
		p = d.fallback
	}
	if p == nil {
		return nil, ErrNone
	}
	return d.client(ctx, *p)
}

func (d *Directory) client(ctx context.Context, p v1alpha1.Prometheus) (*Client, error) {
	var secret *corev1.Secret
	at, version := place{url: p.URL}, ""
	if p.SecretRef != nil {
		at.secret, secret = p.SecretRef.Name, &corev1.Secret{}
		key := client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: at.secret}
		if err := d.reader.Get(ctx, key, secret); apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("its Secret %s does not exist: create it, or correct secretRef", key)
		} else if err != nil {
			return nil, fmt.Errorf("its Secret %s cannot be read: %s", key, apierrors.ReasonForError(err))
		}
		version = string(secret.UID) + "/" + secret.ResourceVersion
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	have := d.clients[at]
	if have.client != nil && have.version == version {
		return have.client, nil
	}
	s, err := settingsOf(p, secret)
	if err != nil {
		return nil, err
	}
	made, err := newClient(s)
	if err != nil {
		return nil, errors.New("its url is no address: correct it")
	}
	if have.client != nil {
		have.client.close()
	}
	d.clients[at] = kept{version, made}
	return made, nil
}
