// SPDX-License-Identifier: Apache-2.0

package state

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLoadOfAnEmptyFolderSaysWhatToDo(t *testing.T) {
	_, err := Load(t.TempDir())
	require.ErrorIs(t, err, ErrNoLab)
	require.ErrorContains(t, err, "make lab")
}

func TestLoadOfADamagedFileSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, File), []byte("{"), 0o600))
	_, err := Load(dir)
	require.ErrorContains(t, err, "isthmus-lab down")
}

func TestConcurrentUpdatesAllArrive(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			err := Update(dir, func(l *Lab) error {
				l.SetProcess(Process{Cluster: "eks", Component: Pod, Name: strconv.Itoa(i)})
				return nil
			})
			require.NoError(t, err)
		})
	}
	wg.Wait()
	lab, err := Load(dir)
	require.NoError(t, err)
	require.Len(t, lab.Processes, 20)
}

func TestUpdateThatFailsChangesNothing(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, Update(dir, func(l *Lab) error { l.Mesh = true; return nil }))
	boom := errors.New("boom")
	require.ErrorIs(t, Update(dir, func(l *Lab) error { l.Mesh = false; return boom }), boom)
	lab, err := Load(dir)
	require.NoError(t, err)
	require.True(t, lab.Mesh)
}

func TestUpdateExistingDoesNotBringALabBack(t *testing.T) {
	dir := t.TempDir()
	require.ErrorIs(t, UpdateExisting(dir, func(*Lab) error { return nil }), ErrNoLab)
	require.NoFileExists(t, filepath.Join(dir, File))
}

func TestReplacePodsKeepsTheControlPlaneAndOtherClusters(t *testing.T) {
	lab := &Lab{Processes: []Process{
		{Cluster: "eks", Component: APIServer, Name: APIServer},
		{Cluster: "eks", Component: Pod, Name: "sample/old"},
		{Cluster: "gke", Component: Pod, Name: "sample/other"},
	}}
	lab.ReplacePods("eks", []Process{{Cluster: "eks", Component: Proxy, Name: "sample/new"}})
	require.Len(t, lab.Find("eks", APIServer), 1)
	require.Empty(t, lab.Find("eks", Pod))
	require.Len(t, lab.Find("eks", Proxy), 1)
	require.Len(t, lab.Find("gke", Pod), 1)
}

func TestAProcessIsAliveOnlyWithItsOwnStartTime(t *testing.T) {
	start, err := StartTime(os.Getpid())
	require.NoError(t, err)
	require.True(t, Process{PID: os.Getpid(), StartTime: start}.Alive())
	require.False(t, Process{PID: os.Getpid(), StartTime: start + 1}.Alive())
	require.False(t, Process{PID: 0}.Alive())
}

func TestStatLineSurvivesBracketsInTheCommand(t *testing.T) {
	fields, err := parseStat("7 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21")
	require.NoError(t, err)
	require.Equal(t, "S", fields[0])
	require.Equal(t, "4711", fields[19])
}
