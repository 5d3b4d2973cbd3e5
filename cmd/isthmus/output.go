// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/yaml"
)

// Forms in which what was read is told.
const (
	asTable = "table"
	asJSON  = "json"
	asYAML  = "yaml"
	asName  = "name"
)

// output is the flag that says in which form.
type output struct {
	form  string
	forms []string
}

// addOutputFlag adds the flag, with the forms that a command has beside its table.
func addOutputFlag(cmd *cobra.Command, forms ...string) *output {
	o := &output{forms: append([]string{asTable}, forms...)}
	cmd.Flags().StringVarP(&o.form, "output", "o", asTable, "form of what is told: "+o.names())
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(o.forms, cobra.ShellCompDirectiveNoFileComp))
	return o
}

func (o *output) names() string {
	last := len(o.forms) - 1
	return strings.Join(o.forms[:last], ", ") + " or " + o.forms[last]
}

func (o *output) check() error {
	if !slices.Contains(o.forms, o.form) {
		return usageError("--output is %q: use %s", o.form, o.names())
	}
	return nil
}

// print writes a value as JSON or YAML, or as table does.
func (o *output) print(out io.Writer, value any, table func(io.Writer) error) error {
	switch o.form {
	case asJSON:
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		return encoder.Encode(value)
	case asYAML:
		text, err := yaml.Marshal(value)
		if err != nil {
			return err
		}
		_, err = out.Write(text)
		return err
	}
	return table(out)
}

// objectList is several objects, as kubectl writes them.
type objectList struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Items      []client.Object `json:"items"`
}

// printObjects writes objects whole or by their names, as kubectl does, or as table does.
func (o *output) printObjects(out io.Writer, objects []client.Object, table func(io.Writer) error) error {
	for i := range objects {
		if err := named(objects[i]); err != nil {
			return err
		}
		if o.form == asName {
			group := objects[i].GetObjectKind().GroupVersionKind()
			fmt.Fprintf(out, "%s.%s/%s\n", strings.ToLower(group.Kind), group.Group, objects[i].GetName())
		}
	}
	if o.form == asName {
		return nil
	}
	return o.print(out, objectList{APIVersion: "v1", Kind: "List", Items: objects}, table)
}

// printObject is printObjects for one that was asked for by its name.
func (o *output) printObject(out io.Writer, object client.Object, table func(io.Writer) error) error {
	if o.form == asName {
		return o.printObjects(out, []client.Object{object}, table)
	}
	if err := named(object); err != nil {
		return err
	}
	return o.print(out, object, table)
}

// named gives an object its kind, which clients strip when they read, and takes off who wrote what.
func named(object client.Object) error {
	kind, err := apiutil.GVKForObject(object, newScheme())
	if err != nil {
		return err
	}
	object.GetObjectKind().SetGroupVersionKind(kind)
	object.SetManagedFields([]metav1.ManagedFieldsEntry(nil))
	return nil
}

// pointersTo are the objects of a list.
func pointersTo[T any, P interface {
	*T
	client.Object
}](items []T) []client.Object {
	out := make([]client.Object, 0, len(items))
	for i := range items {
		out = append(out, P(&items[i]))
	}
	return out
}
