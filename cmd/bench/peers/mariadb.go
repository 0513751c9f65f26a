package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/trillian/storage/mysql"
)

const (
	mariaBinary  = "mariadbd"
	mariaInstall = "mariadb-install-db"
	mariaStart   = 30 * time.Second
)

// A mariaDB is a server of its own on a unix socket, which syncs at each commit.
type mariaDB struct {
	cmd *exec.Cmd
	run string // folder of the socket, whose path must be short
}

// startMariaDB makes a database server in dir.
func startMariaDB(ctx context.Context, dir string) (*mariaDB, error) {
	var asRoot []string
	if os.Geteuid() == 0 {
		asRoot = []string{"--user=root"}
	}
	install := exec.CommandContext(ctx, mariaInstall, append([]string{"--no-defaults", "--datadir=" + dir, "--auth-root-authentication-method=normal", "--skip-test-db"}, asRoot...)...)
	if out, err := install.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make a database in %s: %w: %s", dir, err, out)
	}
	run, err := os.MkdirTemp("", "mariadb")
	if err != nil {
		return nil, err
	}
	m := &mariaDB{run: run}
	m.cmd = exec.Command(mariaBinary, append([]string{
		"--no-defaults", "--datadir=" + dir, "--socket=" + m.socket(), "--skip-networking", "--skip-log-bin",
		"--innodb-flush-log-at-trx-commit=1", "--innodb-buffer-pool-size=3G", "--innodb-log-file-size=1G",
		"--max-connections=2000", "--log-error=" + filepath.Join(dir, "error.log"),
	}, asRoot...)...)
	if err := m.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", mariaBinary, err), os.RemoveAll(run))
	}
	return m, nil
}

func (m *mariaDB) socket() string { return filepath.Join(m.run, "s") }

// stop ends the server and waits for it: nothing of it may go on into the next round.
func (m *mariaDB) stop() error {
	_ = m.cmd.Process.Signal(syscall.SIGTERM) // if it has ended already, Wait says how
	return errors.Join(m.cmd.Wait(), os.RemoveAll(m.run))
}

// settings of connections. Without READ COMMITTED, writers and the sequencer lock each other out (error 1213).
const settings = "?sql_mode='STRICT_ALL_TABLES'&tx_isolation='READ-COMMITTED'"

// open connects to a database with Trillian's tables, through a pool of conns.
func (m *mariaDB) open(ctx context.Context, schemaFile string, conns int) (*sql.DB, error) {
	schema, err := os.ReadFile(schemaFile)
	if err != nil {
		return nil, err
	}
	admin, err := sql.Open("mysql", "root@unix("+m.socket()+")/"+settings+"&multiStatements=true")
	if err != nil {
		return nil, err
	}
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if err = admin.PingContext(ctx); err == nil || time.Since(began) > mariaStart || ctx.Err() != nil {
			break
		}
	}
	if err == nil {
		_, err = admin.ExecContext(ctx, "CREATE DATABASE trillian; USE trillian; "+string(schema))
	}
	if err := errors.Join(err, admin.Close()); err != nil {
		return nil, fmt.Errorf("make Trillian's tables: %w", err)
	}
	db, err := mysql.OpenDB("root@unix(" + m.socket() + ")/trillian" + settings)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// trillianSchema finds the tables of the version of Trillian that is linked.
func trillianSchema(ctx context.Context) (string, error) {
	for _, binary := range []string{mariaBinary, mariaInstall} {
		if _, err := exec.LookPath(binary); err != nil {
			return "", fmt.Errorf("%w: install Debian's mariadb-server (make bench-peers does, as root)", err)
		}
	}
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/google/trillian")
	cmd.Stderr = os.Stderr
	dir, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("find Trillian's source, from the folder of this module: %w", err)
	}
	return filepath.Join(strings.TrimSpace(string(dir)), "storage", "mysql", "schema", "storage.sql"), nil
}
