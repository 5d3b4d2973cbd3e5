// SPDX-License-Identifier: Apache-2.0

package alert

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"isthmus.dev/isthmus/federation"
)

// eventTypePrefix and the reason are the type of a CloudEvent.
const eventTypePrefix = "dev.isthmus."

// maxSlackText is what a chat shows of a message before it folds it; Slack itself cuts at 40,000 characters.
const maxSlackText = 3000

// raised is an alert and when it was raised.
type raised struct {
	federation.Alert
	at time.Time
	// only is the one web hook that is told, empty for all.
	only string
}

// message is the body of a request in a target's format, and its content type.
func message(t target, r raised) (body []byte, contentType string, err error) {
	if t.format == Slack {
		body, err = json.Marshal(map[string]string{"text": slackText(r)})
		return body, "application/json", err
	}
	e := event.New()
	e.SetID(idOf(t, r))
	e.SetSource(t.source)
	e.SetType(eventTypePrefix + r.Reason)
	e.SetSubject(strings.TrimSuffix(strings.Join([]string{r.Object.Kind, r.Object.Namespace, r.Object.Name}, "/"), "/"))
	e.SetTime(r.at)
	e.SetExtension("severity", r.Severity)
	if err := e.SetData(event.ApplicationJSON, r.Alert); err != nil {
		return nil, "", err
	}
	body, err = json.Marshal(e)
	return body, event.ApplicationCloudEventsJSON, err
}

// idOf is the same for each attempt, so that a receiver can tell a repeated delivery.
func idOf(t target, r raised) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s\n%d", t.source, r.Object, r.Reason, r.at.UnixNano()))
	return hex.EncodeToString(sum[:16])
}

// slackText is the alert in Slack's mrkdwn, which Mattermost and others understand too.
func slackText(r raised) string {
	icon := ":information_source:"
	if r.Severity == federation.SeverityWarning {
		icon = ":rotating_light:"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s *%s* %s (%s)", icon, r.Reason, slackEscape(r.Object.String()), r.at.UTC().Format(time.RFC3339))
	for _, m := range r.Moved {
		fmt.Fprintf(&b, "\n• requests that enter %s: *%s*", slackEscape(m.Member), slackEscape(m.After))
		if m.Before != "" {
			fmt.Fprintf(&b, ", before: %s", slackEscape(m.Before))
		}
	}
	for _, o := range r.Seen {
		fmt.Fprintf(&b, "\n> %s in %s: %s", slackEscape(o.Import), slackEscape(o.Cluster), slackEscape(o.Message))
	}
	if len(r.Moved) == 0 {
		fmt.Fprintf(&b, "\n%s", slackEscape(r.Summary))
	}
	if r.Author != "" || r.Why != "" {
		fmt.Fprintf(&b, "\n_%s: %s_", slackEscape(r.Author), slackEscape(r.Why))
	}
	return cut(b.String(), maxSlackText)
}

// slackEscape keeps names and messages from being read as markup or mentions.
func slackEscape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

// cut shortens text to at most n characters.
func cut(text string, n int) string {
	runes := []rune(text)
	if len(runes) <= n {
		return text
	}
	return string(runes[:n-1]) + "…"
}
