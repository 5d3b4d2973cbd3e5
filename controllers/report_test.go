// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
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

func TestAStaleReadIsNoError(t *testing.T) {
	stale, refused := apierrors.NewConflict(schema.GroupResource{}, "x", errors.New("changed")), errors.New("refused")
	require.NoError(t, unlessStale(stale))
	require.Equal(t, refused, unlessStale(refused))
	require.NoError(t, unlessStale(nil))
}
