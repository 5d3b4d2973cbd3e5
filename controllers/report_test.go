// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/events"
)

// A route of 16 rules with 16 imports each that nobody exports says more than a condition holds: the API server would
// refuse the whole status, and nothing would be said.
func TestAMessageIsCutToWhatAConditionHolds(t *testing.T) {
	short := mergeConditions(nil, metav1.Condition{Type: "A", Message: strings.Repeat("x", maxMessage)})[0].Message
	require.Equal(t, strings.Repeat("x", maxMessage), short)
	long := mergeConditions(nil, metav1.Condition{Type: "A", Message: "x" + strings.Repeat("ä", maxMessage)})[0].Message
	require.LessOrEqual(t, len(long), maxMessage)
	require.True(t, utf8.ValidString(long))
	require.True(t, strings.HasSuffix(long, "ä…"))
}

// A person's reason alone may be as long as a note.
func TestANoteIsCutToWhatAnEventHolds(t *testing.T) {
	said := events.NewFakeRecorder(2)
	recorder{said}.Eventf(&corev1.Secret{}, nil, corev1.EventTypeNormal, "Reason", "Action", "%s 100%%", "short")
	require.Equal(t, "Normal Reason short 100%", <-said.Events)
	recorder{said}.Eventf(&corev1.Secret{}, nil, corev1.EventTypeNormal, "R", "A", "%s%%", strings.Repeat("ä", maxNote))
	note := strings.TrimPrefix(<-said.Events, "Normal R ")
	require.LessOrEqual(t, len(note), maxNote)
	require.True(t, utf8.ValidString(note))
	require.True(t, strings.HasSuffix(note, "ä…"))
}

func TestAStaleReadIsNoError(t *testing.T) {
	stale, refused := apierrors.NewConflict(schema.GroupResource{}, "x", errors.New("changed")), errors.New("refused")
	require.NoError(t, unlessStale(stale))
	require.Equal(t, refused, unlessStale(refused))
	require.NoError(t, unlessStale(nil))
}
