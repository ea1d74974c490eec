/* The command line: one function a command, dispatched by the table in main.c. argv[0] is the command's own name; the
 * return value is the process's exit code (DESIGN.md section 9, base/err.def). */
#ifndef CAIRN_CLIENT_CLI_H
#define CAIRN_CLIENT_CLI_H

int cli_put(int argc, char **argv);
int cli_get(int argc, char **argv);
int cli_cat(int argc, char **argv);
int cli_ls(int argc, char **argv);
int cli_stat(int argc, char **argv);
int cli_mkdir(int argc, char **argv);
int cli_mv(int argc, char **argv);
int cli_rm(int argc, char **argv);
int cli_changes(int argc, char **argv);
int cli_admin(int argc, char **argv);
int cli_admin_node(int argc, char **argv);
int cli_admin_token(int argc, char **argv);
int cli_admin_cluster(int argc, char **argv);
int cli_dev(int argc, char **argv);

#endif
